//! The demo as a user starts it, in an environment of its own: every failure of the story is repaired, on the sandbox
//! and, with `KUBEBUILDER_ASSETS` set, on a real control plane.

#[path = "support/control_plane.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod control_plane;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control_plane::ControlPlane;
use serde_json::Value;

/// It takes half a minute; a machine that compiles beside the test takes longer. No time is asserted.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(100);

const FAILURES: [&str; 9] = [
    "bad-yaml",
    "template-error",
    "missing-path",
    "invalid-object",
    "admission",
    "crash-loop",
    "dependency",
    "git-outage",
    "bad-yaml-unannounced",
];

#[test]
fn the_demo_repairs_every_failure_and_says_so_in_json() {
    play(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_repairs_every_failure_on_a_real_control_plane() {
    if !ControlPlane::available() {
        println!("skipped: KUBEBUILDER_ASSETS is not set");
        return;
    }
    let plane = ControlPlane::start().await.unwrap();
    let kubeconfig = plane.kubeconfig().to_str().unwrap().to_owned();
    tokio::task::spawn_blocking(move || play(&["--kubeconfig", &kubeconfig])).await.unwrap();
}

fn play(arguments: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let (summary, log) = (home.path().join("summary.json"), home.path().join("screen"));
    let mut demo = Command::new(env!("CARGO_BIN_EXE_afresh"))
        .args(["demo", "--exit", "-o", "json"])
        .args(arguments)
        .env_clear()
        // git serves the repository
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&summary).unwrap())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let exit = loop {
        if let Some(exit) = demo.try_wait().unwrap() {
            break exit;
        }
        if Instant::now() > deadline {
            demo.kill().unwrap();
            demo.wait().unwrap();
            panic!("the demo does not end:\n{}", std::fs::read_to_string(&log).unwrap());
        }
        std::thread::sleep(LOOK);
    };
    let screen = std::fs::read_to_string(&log).unwrap();
    assert!(exit.success(), "{exit}\n{screen}");

    // stdout is data and nothing else
    let summary: Value = serde_json::from_str(&std::fs::read_to_string(&summary).unwrap()).unwrap();
    let failures = summary["failures"].as_array().unwrap();
    let played: Vec<_> = failures.iter().map(|failure| failure["id"].as_str().unwrap()).collect();
    assert_eq!(played, FAILURES);
    for failure in failures {
        assert_eq!(failure["repaired"], true, "{failure:#}");
        assert!(failure["liveMs"].is_f64() && failure["reportedMs"].is_f64(), "{failure:#}");
        assert!(!failure["message"].as_str().unwrap().is_empty(), "{failure:#}");
    }
    let rotation = &summary["rotation"];
    assert_eq!(rotation["rollouts"], 1, "{rotation:#}");
    assert_eq!(rotation["cause"], "secret/storage-identities: identities.json");
    assert!(rotation["rolledMs"].is_f64() && rotation["servedMs"].is_f64(), "{rotation:#}");
    // it stands in the table as the ninth, and all of them do
    let rows: Vec<_> = screen.lines().skip_while(|line| !line.contains("Flux, by its documented defaults")).collect();
    for number in 1..=10 {
        let begins = |line: &&&str| line.trim_start().starts_with(&format!("{number}  "));
        let row = rows.iter().find(begins).unwrap_or_else(|| panic!("no row {number}:\n{screen}"));
        assert_eq!(row.contains("only a Secret changes"), number == 9, "{row}");
    }
    assert!(screen.contains("9 of 9 repaired, and the one changed Secret rolled out, in"), "{screen}");
    let folder = home.path().to_string_lossy();
    assert!(screen.lines().all(|line| line.chars().count() <= 100 || line.contains(&*folder)), "{screen}");
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("afresh-demo-")), "{left:?}");
}
