//! An API server or a Git server that misbehaves: each fault ends in convergence or in a condition that names it, and
//! what it does not concern goes on meanwhile.

mod answers;
mod definitions;
mod large;
mod outages;
mod watches;

use crate::support::env::Env;
use crate::support::gateway::Gateway;

/// From now on daemons reach their API server by way of a gateway.
async fn through_a_gateway(env: &mut Env) -> Gateway {
    let gateway = Gateway::before(env.kubeconfig(), env.folder()).await;
    env.use_kubeconfig(gateway.kubeconfig());
    gateway
}
