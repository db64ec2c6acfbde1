//! What an election does when its keeper dies.

use super::*;

#[tokio::test]
async fn a_keeper_that_dies_ends_its_term() {
    let lost = CancellationToken::new();
    let lives = tokio::spawn(cancelling_if_it_dies(lost.clone(), async { 1 }));
    assert_eq!(lives.await.unwrap(), 1);
    assert!(!lost.is_cancelled());
    let dies = tokio::spawn(cancelling_if_it_dies(lost.clone(), async { panic!("no clock") }));
    let error = dies.await.unwrap_err();
    assert!(lost.is_cancelled() && error.to_string().contains("no clock"), "{error}");
}
