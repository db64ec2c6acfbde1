//! Bases in other repositories: refused unless they are allowed, pinned, and their faults don't hold back the fix.

use afresh::sandbox::repository::TestRepository;

use serde_json::json;

use crate::support::env::Env;
use crate::support::manifests::config_map;
use crate::support::scenarios;
use crate::support::sshd::Sshd;

scenarios! {
    a_base_in_another_repository_is_refused_and_a_copy_of_it_goes_live,
    an_allowed_base_is_pinned_and_a_new_pin_goes_live,
    a_base_that_is_not_pinned_or_not_there_is_named_and_does_not_hold_back_its_fix,
    a_base_over_ssh_is_fetched_with_the_key_of_its_source_from_hosts_that_are_known_only,
    a_base_over_ssh_without_a_key_is_named_and_does_not_hold_back_its_fix,
}

const IDENTITY: &str = include_str!("../source/keys/identity");

/// A second repository, tagged `v1`.
fn other(env: &Env) -> TestRepository {
    let repository = TestRepository::create(&env.repository.path().with_file_name("other")).unwrap();
    let first = repository
        .commit(
            "one",
            &[
                ("maps/kustomization.yaml", Some("resources: [../shared]\n")),
                ("shared/kustomization.yaml", Some("resources: [map.yaml]\n")),
                ("shared/map.yaml", Some(&config_map("shared", "one"))),
            ],
        )
        .unwrap();
    repository.tag("v1", first, Some("annotated")).unwrap();
    repository
}

fn overlay(env: &Env, query: &str) -> String {
    format!("namePrefix: shop-\nresources:\n- {}//maps{query}\n", env.git.url("other"))
}

async fn value(env: &Env, value: &str) {
    env.until_live("ConfigMap", "shop-shared", &format!("it holds `{value}`"), |map| map["data"]["value"] == value)
        .await;
}

async fn a_base_in_another_repository_is_refused_and_a_copy_of_it_goes_live(env: &mut Env) {
    let _other = other(env);
    let revision = env.push("A", &[("app/kustomization.yaml", &overlay(env, "?ref=v1"))]);
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    let refused = env.failed_at("app", &revision, "app/kustomization.yaml:3:3: `").await;
    let message = crate::support::env::message(&refused);
    assert!(message.contains("is not in this repository"), "{message}");
    assert!(message.contains("hint: copy it into the repository"), "{message}");
    assert!(message.contains("--allow-remote-bases"), "{message}");

    let copied = env.push(
        "B",
        &[
            ("app/kustomization.yaml", "namePrefix: shop-\nresources: [map.yaml]\n"),
            ("app/map.yaml", &config_map("shared", "copied")),
        ],
    );
    env.ready_at("app", &copied).await;
    value(env, "copied").await;
}

async fn an_allowed_base_is_pinned_and_a_new_pin_goes_live(env: &mut Env) {
    let other = other(env);
    env.arguments.push("--allow-remote-bases".into());
    env.begin(&[("app/kustomization.yaml", &overlay(env, "?ref=v1"))]).await;
    value(env, "one").await;
    let tagged = other.tip("main").unwrap().unwrap();
    env.eventually("the commit of the tag is told", async || {
        let told = env.events("app").await;
        told.iter().any(|(_, message)| message.contains(&format!("is commit {tagged}"))).then_some(())
    })
    .await;

    let second = other.commit("two", &[("shared/map.yaml", Some(&config_map("shared", "two")))]).unwrap();
    let unrelated = env.push("B", &[("app/more.yaml", &config_map("more", "x"))]);
    env.announce().await;
    env.ready_at("app", &unrelated).await;
    value(env, "one").await;

    let pinned = env.push("C", &[("app/kustomization.yaml", &overlay(env, &format!("?ref={second}")))]);
    env.announce().await;
    env.ready_at("app", &pinned).await;
    value(env, "two").await;
}

async fn a_base_that_is_not_pinned_or_not_there_is_named_and_does_not_hold_back_its_fix(env: &mut Env) {
    let _other = other(env);
    env.arguments.push("--allow-remote-bases".into());
    let broken = env.push("A", &[("app/kustomization.yaml", &overlay(env, ""))]);
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    env.failed_at("app", &broken, "it names no revision").await;

    let branch = env.push("B", &[("app/kustomization.yaml", &overlay(env, "?ref=main"))]);
    env.failed_at("app", &branch, "`ref` must be a tag or a full commit id").await;

    let fix = env.push("C", &[("app/kustomization.yaml", &overlay(env, "?ref=v1"))]);
    env.ready_at("app", &fix).await;
    value(env, "one").await;
}

async fn a_base_over_ssh_is_fetched_with_the_key_of_its_source_from_hosts_that_are_known_only(env: &mut Env) {
    if !Sshd::is_installed() {
        println!("skipped: there is no sshd");
        return;
    }
    let other = other(env);
    env.arguments.push("--allow-remote-bases".into());
    let (known, stranger) = (Sshd::start(IDENTITY), Sshd::start(IDENTITY));
    env.eventually("sshd listens", async || (known.listens() && stranger.listens()).then_some(())).await;
    env.secret("ssh", json!({ "identity": IDENTITY, "known_hosts": known.known_hosts() })).await;
    let at = |sshd: &Sshd, reference: &str| {
        let url = sshd.url(other.path());
        format!("namePrefix: shop-\nresources:\n- {url}//maps?ref={reference}\n")
    };
    let first = env.push("A", &[("app/kustomization.yaml", &at(&known, "v1"))]);
    let url = known.url(env.repository.path());
    env.source(|spec| {
        spec["url"] = json!(url);
        spec["secretRef"] = json!({ "name": "ssh" });
    })
    .await;
    env.kustomization("app", |_| {}).await;
    env.start();
    env.ready_at("app", &first).await;
    value(env, "one").await;

    let second = other.commit("two", &[("shared/map.yaml", Some(&config_map("shared", "two")))]).unwrap();
    let moved = env.push("B", &[("app/kustomization.yaml", &at(&stranger, &second.to_string()))]);
    env.announce().await;
    env.failed_at("app", &moved, "`known_hosts` has no key of the host of `ssh://").await;
    assert_eq!(
        env.live("ConfigMap", "shop-shared").await.unwrap()["data"]["value"],
        "one",
        "nothing of the stranger's"
    );

    // who has compared the fingerprints writes the host down
    let both = format!("{}{}", known.known_hosts(), stranger.known_hosts());
    env.secret("ssh", json!({ "identity": IDENTITY, "known_hosts": both })).await;
    env.ready_at("app", &moved).await;
    value(env, "two").await;
}

async fn a_base_over_ssh_without_a_key_is_named_and_does_not_hold_back_its_fix(env: &mut Env) {
    env.arguments.push("--allow-remote-bases".into());
    let base = "resources: ['git@git.example.com:org/base.git//maps?ref=v1']\n";
    let broken = env.push("A", &[("app/kustomization.yaml", base)]);
    env.source(|_| {}).await;
    env.kustomization("app", |_| {}).await;
    env.start();
    let refused = env.failed_at("app", &broken, "remote base `ssh://git@git.example.com/org/base.git?ref=v1`").await;
    let message = crate::support::env::message(&refused);
    assert!(message.contains("there is no key for ssh here"), "{message}");
    assert!(message.contains("hint: it is fetched with the key of the application's GitRepository"), "{message}");

    let fix = env.push(
        "B",
        &[
            ("app/kustomization.yaml", "namePrefix: shop-\nresources: [map.yaml]\n"),
            ("app/map.yaml", &config_map("shared", "copied")),
        ],
    );
    env.ready_at("app", &fix).await;
    value(env, "copied").await;
}
