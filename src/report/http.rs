//! `/metrics`, `/healthz`, `/readyz`, and `/runbook`, to which alerts link.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::{
    Router, extract::State, http::StatusCode, http::header, response::Html, response::IntoResponse, routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::runbook;

/// Set once the daemon has seen all objects it serves.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Serves until cancelled. Errors of the listener end the process: an unwatched daemon is worse than none.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route(
            "/metrics",
            get(|State((metrics, _)): State<(Metrics, Readiness)>| async move {
                ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.text())
            }),
        )
        .route("/runbook", get(|| async { Html(runbook::page()) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(|State((_, readiness)): State<(Metrics, Readiness)>| async move {
                if readiness.is_ready() {
                    (StatusCode::OK, "ok\n").into_response()
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "the cluster's objects have not all been seen yet\n")
                        .into_response()
                }
            }),
        )
        .with_state((metrics, readiness));
    axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await
}
