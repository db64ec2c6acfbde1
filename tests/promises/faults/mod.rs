//! An API server or a Git server that misbehaves: each fault ends in convergence or in a condition that names it, and
//! what it does not concern goes on meanwhile.

mod answers;
mod definitions;
mod large;
mod outages;
mod watches;

use serde_json::Value;

use crate::support::env::Env;
use crate::support::gateway::Gateway;

/// From now on daemons reach their API server by way of a gateway.
async fn through_a_gateway(env: &mut Env) -> Gateway {
    let gateway = Gateway::before(env.kubeconfig(), env.folder()).await;
    env.use_kubeconfig(gateway.kubeconfig());
    gateway
}

/// What was pushed as `revision` is live by two applications: `app`, with this spec, and `other`, which has nothing to do
/// with it.
async fn begin_with_another(env: &mut Env, revision: &str, spec_of_app: impl FnOnce(&mut Value)) {
    env.source(|_| {}).await;
    env.kustomization("app", spec_of_app).await;
    env.kustomization("other", |_| {}).await;
    env.start();
    env.ready_at("app", revision).await;
    env.ready_at("other", revision).await;
}
