//! Server-side apply of what was planned: the only stage that writes declared objects.
//!
//! ```text
//!  Work: stages of objects ─▶ for each stage   more than one object? dry-run all; any refusal, nothing is sent
//!                                              send in parallel, one write in flight per object
//!                          ─▶ Applied, or what was refused and what was sent until then
//! ```
//!
//! Comes in: objects with their owner labels and digest, in order. Goes out: what became of each. It never decides what
//! is applied or deleted, never deletes what does not carry the owner's labels, and never sleeps over an error but for
//! a kind or a namespace that the same work has just made.

mod adoption;
mod applier;
mod left;
mod order;
mod outcome;
mod preview;
mod prune;
mod recreation;
mod unknown;

pub use applier::{Applier, PARALLEL, Stop, Work};
pub use order::{Stage, stage_of};
pub use outcome::{Action, Applied, ApplyError, Dropped, Outcome, Progress, Refusal, UnknownFields};
pub use preview::{Fate, Outlook, Preview, comparable};
pub use prune::{Kept, Pruned, Standing, standing};
pub use unknown::places as field_places;
