//! Which commits concern an application, and what was told of each to the forge that it came from. Pure, but for the
//! last part.
//!
//! A commit concerns an application if something that the application reads changed with it: the renderer says so by
//! having had to render again. Of what else is committed nothing is told. What renders the same as the commit before it
//! shares that one's fate.

use crate::api::{Conditions, Kustomization, KustomizationStatus, READY, Truth};
use crate::report::CommitState;

use super::report::subject;
use super::{Application, Work};

/// Commits that are kept in mind: those that render the same, one after another, while the first of them is waiting.
const COMMITS_MAX: usize = 20;

/// What a commit renders to; `None`: it can't be rendered.
type Digest = Option<[u8; 32]>;

/// Owned by the application's memory.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// Oldest first; all but the last render the same as the last, or were told of as pending.
    known: Vec<Commit>,
    /// The revision that the status spoke of at start, and what was told of it.
    recorded: Option<(String, CommitState)>,
    /// Something was rendered since the start: from then on it is known what a commit changes.
    begun: bool,
}

#[derive(Debug)]
struct Commit {
    revision: String,
    renders: Digest,
    told: Option<CommitState>,
    /// False for the first one after a start: whether it changed anything here is not known yet.
    concerns: bool,
}

/// What is to be told of which revision.
pub(super) type Tell = Vec<(String, CommitState)>;

impl Commits {
    pub fn new(status: Option<&KustomizationStatus>) -> Self {
        let recorded = status.and_then(|status| {
            let state = match Conditions::get(&status.conditions, READY)?.status {
                Truth::True => CommitState::Success,
                Truth::False => CommitState::Failure,
                Truth::Unknown => CommitState::Pending,
            };
            Some((status.last_attempted_revision.clone()?, state))
        });
        Self { recorded, ..Self::default() }
    }

    /// A revision was rendered, since something that is read changed with it.
    pub fn rendered(&mut self, revision: &str, renders: Digest) -> Tell {
        let first = !std::mem::replace(&mut self.begun, true);
        if let Some(last) = self.known.last_mut().filter(|last| last.revision == revision) {
            // other values for the same commit
            last.renders = renders;
            return Tell::new();
        }
        let mut tell = Tell::new();
        self.known.retain(|commit| {
            let same = commit.renders == renders && renders.is_some();
            if !same && commit.told == Some(CommitState::Pending) {
                tell.push((commit.revision.clone(), CommitState::Superseded));
            }
            same
        });
        let told = self.recorded.take().filter(|(of, _)| of == revision).map(|(_, state)| state);
        let concerns = !first || told.is_some();
        let mut commit = Commit { revision: revision.to_owned(), renders, told, concerns };
        if !first && renders.is_some() {
            commit.told = Some(CommitState::Pending);
            tell.push((commit.revision.clone(), CommitState::Pending));
        }
        self.known.push(commit);
        if self.known.len() > COMMITS_MAX {
            self.known.remove(0);
        }
        tell
    }

    /// What renders to this is being applied, or has come to an end.
    pub fn became(&mut self, revision: &str, renders: Digest, state: CommitState) -> Tell {
        let mut tell = Tell::new();
        for commit in &mut self.known {
            let meant = commit.revision == revision || (renders.is_some() && commit.renders == renders);
            // a failure, or something to do, is reason enough
            commit.concerns |= meant && state != CommitState::Success;
            let again = state == CommitState::Pending && commit.told.is_some();
            if meant && commit.concerns && commit.told != Some(state) && !again {
                commit.told = Some(state);
                tell.push((commit.revision.clone(), state));
            }
        }
        tell
    }
}

impl Application {
    /// Tells the forges how the commits fare that an attempt works on.
    pub fn commits_became(&self, work: &Work, state: CommitState, reason: &str, message: &str) {
        let (revision, renders) = (work.revision(), work.renders());
        let tell = self.memory().commits.became(&revision, renders, state);
        self.tell_commits(&work.object, tell, &revision, reason, message);
    }

    /// `newest`: the revision that the others gave way to.
    pub fn tell_commits(&self, object: &Kustomization, tell: Tell, newest: &str, reason: &str, message: &str) {
        for (revision, state) in tell {
            let (reason, message) = match state {
                CommitState::Superseded => ("Superseded", format!("superseded by {newest}")),
                _ => (reason, message.to_owned()),
            };
            self.shared.events.commit(subject(&self.key, object), revision, state, reason, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CommitState::{Failure, Pending, Success, Superseded};
    use super::*;

    const X: Digest = Some([1; 32]);
    const Y: Digest = Some([2; 32]);

    fn told(tell: &Tell) -> Vec<(&str, CommitState)> {
        tell.iter().map(|(revision, state)| (revision.as_str(), *state)).collect()
    }

    fn running() -> Commits {
        let mut commits = Commits::default();
        assert_eq!(commits.rendered("a", Some([0; 32])), []);
        assert_eq!(commits.became("a", Some([0; 32]), Success), []);
        commits
    }

    #[test]
    fn a_commit_is_pending_and_then_comes_to_one_end() {
        let mut commits = running();
        assert_eq!(told(&commits.rendered("b", X)), [("b", Pending)]);
        assert_eq!(commits.became("b", X, Pending), []);
        assert_eq!(told(&commits.became("b", X, Failure)), [("b", Failure)]);
        assert_eq!(commits.became("b", X, Failure), [], "a retry");
        assert_eq!(commits.became("b", X, Pending), [], "a retry");
        assert_eq!(told(&commits.became("b", X, Success)), [("b", Success)], "it healed");
        assert_eq!(commits.became("b", X, Success), []);
    }

    #[test]
    fn what_can_not_be_rendered_fails_without_having_been_pending() {
        let mut commits = running();
        assert_eq!(commits.rendered("b", None), []);
        assert_eq!(told(&commits.became("b", None, Failure)), [("b", Failure)]);
        assert_eq!(commits.became("c", None, Failure), [], "a commit elsewhere, while it is broken");
        assert_eq!(told(&commits.rendered("d", X)), [("d", Pending)]);
        assert_eq!(told(&commits.became("d", X, Success)), [("d", Success)]);
    }

    #[test]
    fn a_commit_elsewhere_has_no_status_and_the_one_before_gets_its_own() {
        let mut commits = running();
        commits.rendered("b", X);
        assert_eq!(told(&commits.became("elsewhere", X, Success)), [("b", Success)]);
    }

    #[test]
    fn what_renders_the_same_shares_its_fate_and_what_does_not_supersedes() {
        let mut commits = running();
        commits.rendered("b", X);
        assert_eq!(told(&commits.rendered("c", X)), [("c", Pending)]);
        assert_eq!(told(&commits.rendered("d", Y)), [("b", Superseded), ("c", Superseded), ("d", Pending)]);
        assert_eq!(commits.became("b", X, Success), [], "too late");
        assert_eq!(told(&commits.became("d", Y, Success)), [("d", Success)]);
    }

    #[test]
    fn after_a_start_a_commit_concerns_us_if_there_is_something_to_do_or_it_fails() {
        assert_eq!(Commits::default().rendered("a", X), []);
        let mut commits = Commits::default();
        commits.rendered("a", X);
        assert_eq!(commits.became("a", X, Success), [], "nothing was done");
        let mut commits = Commits::default();
        commits.rendered("a", X);
        assert_eq!(told(&commits.became("a", X, Pending)), [("a", Pending)]);
        assert_eq!(told(&commits.became("a", X, Success)), [("a", Success)]);
    }

    #[test]
    fn what_was_told_before_a_restart_is_not_told_again() {
        let at = |state| Commits { recorded: Some(("b".into(), state)), ..Commits::default() };
        let mut commits = at(Failure);
        commits.rendered("b", X);
        assert_eq!(commits.became("b", X, Failure), []);
        assert_eq!(told(&commits.became("b", X, Success)), [("b", Success)]);
        let mut commits = at(Pending);
        commits.rendered("b", X);
        assert_eq!(commits.became("b", X, Pending), []);
        assert_eq!(told(&commits.became("b", X, Success)), [("b", Success)]);
        let mut commits = at(Pending);
        commits.rendered("c", Y);
        assert_eq!(told(&commits.became("c", Y, Failure)), [("c", Failure)]);
    }
}
