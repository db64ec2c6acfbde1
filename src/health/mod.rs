//! Whether objects do what they are there for, and if not, why.
//!
//! Comes in: objects and Pods as they were seen last, and the time. Goes out: a verdict with a reason for people, and
//! when to look again. Pure: it watches nothing and waits for nothing.

mod cause;
mod expression;
mod verdict;

pub use cause::{Cause, Judgement, Patience, Trouble, cause};
pub use expression::{Expression, ExpressionError, Expressions};
pub use verdict::{Verdict, assess, ending};
