//! The environment that scenarios run in: a cluster, a Git server with one repository, a kubelet and the daemon.
//!
//! ```text
//!  test ── commit ──▶ repository ◀── HTTP ── daemon ── Kubernetes API ──▶ cluster ◀── kubelet
//!    └───────────────────────────── watches, annotations ───────────────────┘
//! ```
//! A scenario is one function; [`scenarios!`] runs it on the sandbox and on a real control plane.

pub mod canaries;
pub mod control_plane;
pub mod daemon;
pub mod env;
pub mod flux;
pub mod forge;
pub mod forward_proxy;
pub mod gateway;
pub mod in_process;
pub mod installation;
pub mod manifests;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod rights;
pub mod rollouts;
pub mod socks_proxy;
pub mod sshd;
pub mod tls;
pub mod wait;

/// Makes two tests of each function `async fn name(env: &mut Env)`: `sandbox::name`, and `real::name`, which needs
/// `KUBEBUILDER_ASSETS` and says so without it.
///
/// After `only on the sandbox:` there is no second; after `on clusters of their own:` nobody else is on the real one.
macro_rules! scenarios {
    (on clusters of their own: $($name:ident),+ $(,)?) => {
        scenarios! { only on the sandbox: $($name),+ }
        scenarios! { on_real_server_of_its_own: $($name),+ }
    };
    ($environment:ident: $($name:ident),+) => {
        mod real {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(mut env) = $crate::support::env::Env::$environment(stringify!($name)).await {
                        super::$name(&mut env).await;
                        env.assert_nothing_is_told().await;
                    }
                }
            )+
        }
    };
    (only on the sandbox: $($name:ident),+ $(,)?) => {
        mod sandbox {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let mut env = $crate::support::env::Env::on_sandbox(stringify!($name)).await;
                    super::$name(&mut env).await;
                    env.assert_nothing_is_told().await;
                }
            )+
        }
    };
    ($($name:ident),+ $(,)?) => {
        scenarios! { only on the sandbox: $($name),+ }
        scenarios! { on_real_server: $($name),+ }
    };
}
pub(crate) use scenarios;
