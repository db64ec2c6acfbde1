//! What a build may still make, and whether it should go on at all.
//!
//! In: a weight before something is made or copied. Out: leave to go on. A build asks often enough that one that is
//! preempted stops within milliseconds, and that no tree, however its patches and replacements multiply, takes more
//! memory than the limit.

use std::cell::Cell;

use super::node::Node;
use crate::render::error::RenderError;

/// Of text and structure that one build reads, makes and copies: 20,000 objects of a hundred values each, and their
/// patches. In memory it is about twice that.
pub const MADE_BYTES_MAX: usize = 256 << 20;
/// What a value takes besides its text.
pub const NODE_BYTES: usize = 64;

pub struct Budget<'a> {
    cancelled: &'a dyn Fn() -> bool,
    bytes: usize,
    left: Cell<usize>,
    stop: Cell<Option<Stop>>,
}

#[derive(Clone, Copy)]
enum Stop {
    Cancelled,
    Spent,
}

impl<'a> Budget<'a> {
    pub fn new(cancelled: &'a dyn Fn() -> bool, bytes: usize) -> Self {
        Self { cancelled, bytes, left: Cell::new(bytes), stop: Cell::new(None) }
    }

    /// An error whose words don't matter: [`Budget::stopped`] has those that do.
    pub fn spend(&self, bytes: usize) -> Result<(), String> {
        if (self.cancelled)() {
            self.stop.set(Some(Stop::Cancelled));
            return Err("cancelled".into());
        }
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.stop.set(Some(Stop::Spent));
                Err("the build is too large".into())
            }
        }
    }

    /// Asked on the way through many things.
    pub fn go_on(&self) -> Result<(), String> {
        self.spend(0)
    }

    /// Why the build was stopped, if it was.
    pub fn stopped(&self) -> Option<RenderError> {
        self.stop.get().map(|stop| match stop {
            Stop::Cancelled => RenderError::Cancelled,
            Stop::Spent => RenderError::TooMuchMade { limit: self.bytes },
        })
    }
}

/// What a copy of a value costs.
pub fn weight(node: &Node) -> usize {
    NODE_BYTES
        + match node {
            Node::Scalar(scalar) => scalar.text.len(),
            Node::List(items) => items.iter().map(weight).sum(),
            Node::Map(entries) => entries.iter().map(|(key, node)| key.len() + weight(node)).sum(),
        }
}
