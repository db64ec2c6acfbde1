//! The demo as a user starts it, on an environment of its own: every failure of the story is repaired.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    let home = tempfile::tempdir().unwrap();
    let (summary, log) = (home.path().join("summary.json"), home.path().join("screen"));
    let mut demo = Command::new(env!("CARGO_BIN_EXE_afresh"))
        .args(["demo", "--exit", "-o", "json"])
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
    let folder = home.path().to_string_lossy();
    assert!(screen.lines().all(|line| line.chars().count() <= 100 || line.contains(&*folder)), "{screen}");
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("afresh-demo-")), "{left:?}");
}
