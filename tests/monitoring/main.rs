//! What a person is told by metrics, alerts and the dashboard: that they agree with each other and with the
//! documentation, and that they say what happens.

#[allow(dead_code, reason = "each test binary uses its part of the environment")]
#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod alerting;
mod manifests;
mod scrape;
mod servers;
