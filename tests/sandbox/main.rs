//! The sandbox as its clients see it: kube's client, raw HTTP and kubectl.

mod crud;
mod definitions;
mod deletion;
mod faults;
mod kubectl;
mod support;
mod watches;
