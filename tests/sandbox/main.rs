//! The sandbox as its clients see it: kube's client, raw HTTP and kubectl.

#[path = "../support/control_plane.rs"]
#[expect(dead_code, reason = "only a part of it is used here")]
mod control_plane;
mod crud;
mod definitions;
mod deletion;
mod discovery;
mod faults;
mod kubectl;
mod openapi;
mod recorded;
mod refusals;
mod support;
mod watches;
