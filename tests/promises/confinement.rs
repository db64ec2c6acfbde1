//! What the Deployment takes away from the daemon, it does not need.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use afresh::manifest::yaml;
use serde_json::Value;

use crate::support::daemon::Runner;
use crate::support::env::Env;
use crate::support::installation;
use crate::support::manifests::config_map;
use crate::support::process::can_confine;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_as_nobody_on_a_read_only_root_without_capabilities() {
    if !can_confine().await {
        println!("skipped: this machine has no unshare and setpriv, or does not allow them");
        return;
    }
    let mut env = Env::on_sandbox("confined").await;
    env.runner = Runner::Confined;
    // nobody has to get at the kubeconfig, as at the token in a Pod
    for (path, mode) in [(env.folder(), 0o755), (env.kubeconfig(), 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let a = env.begin(&[("app/settings.yaml", &config_map("settings", "a"))]).await;
    let daemon = env.daemon.as_ref().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id().unwrap())).unwrap();
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!(of("Uid:"), ["65532"; 4].join("\t"));
    assert_eq!(of("Gid:"), ["65532"; 4].join("\t"));
    assert_eq!(of("NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(of(set).trim_matches('0'), "", "{set}");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", daemon.id().unwrap())).unwrap();
    let home = env.data_dir().parent().unwrap().to_owned();
    assert_eq!(writable(&mounts), [home.to_str().unwrap()]);

    let broken = env.push("B", &[("app/settings.yaml", "[")]);
    env.announce().await;
    env.failed_at("app", &broken, "app/settings.yaml").await;
    let fix = env.push("C", &[("app/settings.yaml", &config_map("settings", "c"))]);
    env.ready_at("app", &fix).await;
    assert_ne!(a, fix);
    env.daemon.take().unwrap().stop().await.unwrap();
    // the cache of before is its own
    env.start();
    env.reconcile("app").await;
    env.daemon.take().unwrap().stop().await.unwrap();
}

/// The places that may be written: mount point and options are the fifth and sixth field (proc_pid_mountinfo(5)).
fn writable(mounts: &str) -> Vec<&str> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let disks = fields.filter(|fields| fields[5].split(',').any(|option| option == "rw"));
    disks.map(|fields| fields[4]).filter(|place| !KERNEL.iter().any(|kernel| place.starts_with(kernel))).collect()
}

/// What the kernel shows of itself is nobody's to write; some machines don't let it be mounted otherwise.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

#[test]
fn the_deployment_takes_away_all_that_it_does_not_need() {
    let file = installation::manifests().join("base/deployment.yaml");
    let deployment = documents(&file).remove(0);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["securityContext"]["runAsGroup"], 65532);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["capabilities"], serde_json::json!({ "drop": ["ALL"] }));
    let mounts = container["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect::<Vec<_>>(), ["/data", "/tmp"]);
}

fn documents(file: &Path) -> Vec<Value> {
    let name = file.to_str().unwrap();
    let documents = yaml::documents(name, &std::fs::read(file).unwrap()).unwrap();
    documents.into_iter().map(|document| document.value).collect()
}
