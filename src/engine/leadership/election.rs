//! The election: waiting for all Leases, keeping them for a term, giving them up.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{ApiError, Cluster, ErrorClass, Fence};
use crate::report::Readiness;

use super::claim::{Claim, Outcome, Whose, silence_max};
use super::shards::Vacant;
use super::{Leadership, Standing};

/// How it is decided who leads.
#[derive(Clone, Debug)]
pub struct ElectionOptions {
    /// Who we are; the same after a restart on the same data dir, which only one process can use at a time.
    pub identity: String,
    /// Where our own Lease lives.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// Where the Leases of Flux's controllers live; `None`: they are not asked for.
    pub flux_namespace: Option<String>,
    /// The names of those that are to stand by.
    pub flux_leases: Vec<String>,
    /// How long a Lease lasts, in whole seconds.
    pub duration: Duration,
}

/// Why the election can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// The task that renews the Leases panicked.
    #[error("the keeper of the Leases failed: {0}\nhint: the daemon ends rather than go on without it; start it again")]
    KeeperDied(String),
    #[error(
        "the Lease `{place}` can't be held: {source}\nhint: the daemon needs to get, create and update Leases there; the manifests grant it. --no-leader-election goes without, for a single replica beside no Flux"
    )]
    Refused { place: String, source: ApiError },
}

impl ElectionOptions {
    /// 10 s of 35 s.
    pub(super) fn renew_every(&self) -> Duration {
        self.duration * 2 / 7
    }

    /// No write begins later than this after the last renewal: 25 s of 35 s.
    fn write_for(&self) -> Duration {
        self.duration * 5 / 7
    }

    /// How often a Lease is looked at that is another's, or could not be renewed. A released one is taken in this time,
    /// and a renewal is noticed this much late at most: half of what [`silence_max`] leaves for that.
    pub(super) fn look_every(&self) -> Duration {
        Duration::from_millis(500).min(self.duration / 70)
    }
}

/// Waits for terms and hands them out.
pub struct Election {
    cluster: Cluster,
    options: ElectionOptions,
    claims: Vec<Claim>,
    standing: watch::Sender<Standing>,
    office: Office,
    readiness: Readiness,
}

/// Is told whether we lead, for metrics.
pub type Office = Arc<dyn Fn(bool) + Send + Sync>;

/// The time in which this replica leads.
pub struct Term {
    /// What every write of the term has to pass.
    pub fence: Fence,
    /// Cancelled when it is over.
    pub lost: CancellationToken,
    stop: CancellationToken,
    keeper: JoinHandle<Vec<Claim>>,
}

/// What came of asking for all Leases once.
enum Round {
    Held,
    /// In words, and how long until it counts as over.
    Others(String, Duration),
    Failed {
        place: String,
        error: ApiError,
    },
}

impl Election {
    /// `cluster` may not be behind a fence.
    pub fn new(cluster: Cluster, options: ElectionOptions, office: Office, readiness: Readiness) -> (Self, Leadership) {
        let mut claims = vec![Claim::new(Whose::Ours, &options.namespace, &options.lease)];
        if let Some(namespace) = &options.flux_namespace {
            claims.extend(options.flux_leases.iter().map(|name| Claim::new(Whose::Flux, namespace, name)));
        }
        let (standing, receiver) = watch::channel(Standing::Starting);
        office(false);
        (Self { cluster, options, claims, standing, office, readiness }, Leadership(receiver))
    }

    /// For the Lease of a shard alone, which was found vacant.
    pub fn of_shard(
        cluster: Cluster,
        options: ElectionOptions,
        vacant: Vacant,
        office: Office,
        readiness: Readiness,
    ) -> Self {
        let (mut election, _) = Self::new(cluster, options, office, readiness);
        election.claims = vec![vacant.0];
        election
    }

    /// Returns once all Leases are ours; `None` when cancelled. What is held by then is kept for `end`.
    pub async fn win(&mut self, cancel: &CancellationToken) -> Result<Option<Term>, ElectionError> {
        let (mut failed, mut refused_since) = (None, None);
        loop {
            let mut pause = self.options.look_every();
            let round = tokio::select! {
                round = self.ask_in_order() => round,
                () = cancel.cancelled() => return Ok(None),
            };
            match round {
                Round::Held => return Ok(Some(self.begin())),
                Round::Others(words, left) => {
                    failed = None;
                    pause = pause.min(left);
                    // who stands by answers for itself: it is ready to take over
                    self.readiness.set();
                    self.stand_by(words);
                }
                Round::Failed { place, error } => {
                    let refused = error.class == ErrorClass::Forbidden;
                    let since = refused.then(|| *refused_since.get_or_insert_with(Instant::now));
                    // rights that were just given take a moment
                    if since.is_some_and(|since| since.elapsed() >= REFUSED_MAX) {
                        return Err(ElectionError::Refused { place, source: error });
                    }
                    if failed.as_ref() != Some(&error.message) {
                        tracing::warn!(lease = place, %error, "the Lease could not be asked for; tried again");
                    }
                    failed = Some(error.message);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return Ok(None),
            }
        }
    }

    /// Ends a term: nothing passes its fence any more. With `release` the Leases are given up, so that a successor need
    /// not wait for their end; without, they run out, as they must while a write may still be under way.
    pub async fn end(&mut self, term: Term, release: bool) -> Result<(), ElectionError> {
        term.fence.close();
        term.stop.cancel();
        (self.office)(false);
        // without the claims nothing could be asked for again
        self.claims = term.keeper.await.map_err(|error| ElectionError::KeeperDied(error.to_string()))?;
        if release {
            self.release().await;
        }
        self.standing.send_replace(Standing::Starting);
        Ok(())
    }

    /// Gives up what is held.
    pub async fn release(&mut self) {
        let (cluster, identity) = (&self.cluster, self.options.identity.as_str());
        let releases = join_all(self.claims.iter_mut().map(|claim| claim.release(cluster, identity)));
        match tokio::time::timeout(RELEASE_MAX, releases).await {
            Ok(results) => {
                for error in results.into_iter().filter_map(Result::err) {
                    tracing::warn!(%error, "a Lease could not be released; it runs out by itself");
                }
            }
            Err(_) => tracing::warn!("the Leases could not be released in time; they run out by themselves"),
        }
    }

    fn stand_by(&self, words: String) {
        let standing = Standing::StandingBy(words);
        if *self.standing.borrow() != standing {
            if let Standing::StandingBy(words) = &standing {
                tracing::info!("standing by: {words}");
            }
            self.standing.send_replace(standing);
        }
    }

    /// Asks for our own Lease first, then for Flux's: all of them or none, for half of them would stop Flux without
    /// anyone taking its place. All are looked at each time, so that those of a lost replica run out together.
    async fn ask_in_order(&mut self) -> Round {
        let (cluster, options) = (&self.cluster, &self.options);
        let identity = options.identity.as_str();
        let is_fresh = |claim: &Claim| claim.held_since().is_some_and(|since| since.elapsed() < options.renew_every());
        let looks = join_all(self.claims.iter_mut().map(async |claim| match is_fresh(claim) {
            true => Ok(None),
            false => look(claim, cluster, options).await,
        }));
        let mut held_by_others = None;
        for (at, seen) in looks.await.into_iter().enumerate() {
            let claim = &self.claims[at];
            match seen {
                Ok(Some(Outcome::Others { holder, left })) => {
                    let others = Round::Others(in_words(claim, &holder), left);
                    if claim.whose == Whose::Ours {
                        return others;
                    }
                    held_by_others.get_or_insert(others);
                }
                Ok(_) => {}
                Err(error) => return Round::Failed { place: claim.place(), error },
            }
        }
        let (own, flux) = self.claims.split_at_mut(1);
        if !is_fresh(&own[0]) {
            match ask(&mut own[0], cluster, options).await {
                Outcome::Held | Outcome::NoSuchPlace => {}
                Outcome::Others { holder, left } => return Round::Others(in_words(&own[0], &holder), left),
                Outcome::Failed(error) => return Round::Failed { place: own[0].place(), error },
            }
        }
        if let Some(others) = held_by_others {
            return others;
        }
        for at in 0..flux.len() {
            let round = match ask(&mut flux[at], cluster, options).await {
                Outcome::Held | Outcome::NoSuchPlace => continue,
                Outcome::Others { holder, left } => Round::Others(in_words(&flux[at], &holder), left),
                Outcome::Failed(error) => Round::Failed { place: flux[at].place(), error },
            };
            // somebody was quicker with one of them: the others are given back
            for claim in &mut flux[..at] {
                if let Err(error) = claim.release(cluster, identity).await {
                    tracing::warn!(lease = claim.place(), %error, "a Lease could not be given back; it runs out by itself");
                }
            }
            return round;
        }
        Round::Held
    }

    fn begin(&mut self) -> Term {
        let (fence, lost, stop) = (Fence::shut(), CancellationToken::new(), CancellationToken::new());
        let keeper = Keeper {
            cluster: self.cluster.clone(),
            options: self.options.clone(),
            claims: std::mem::take(&mut self.claims),
            fence: fence.clone(),
            standing: self.standing.clone(),
            office: self.office.clone(),
        };
        keeper.extend();
        tracing::info!(identity = self.options.identity, lease = self.options.lease, "leading");
        self.standing.send_replace(Standing::Leading);
        (self.office)(true);
        let keeping = keeper.keep(lost.clone(), stop.clone());
        let keeper = tokio::spawn(cancelling_if_it_dies(lost.clone(), keeping));
        Term { fence, lost, stop, keeper }
    }
}

/// A keeper that dies without a word would leave a daemon behind that writes nothing and doesn't know it.
async fn cancelling_if_it_dies<T>(lost: CancellationToken, work: impl Future<Output = T>) -> T {
    let guard = lost.drop_guard();
    let done = work.await;
    guard.disarm();
    done
}

/// How long the API server may refuse the Leases before it is taken at its word.
const REFUSED_MAX: Duration = Duration::from_secs(10);
/// The end of the process may not take long: a successor that finds the Lease held waits for its end.
const RELEASE_MAX: Duration = Duration::from_millis(900);

async fn look(claim: &mut Claim, cluster: &Cluster, options: &ElectionOptions) -> Result<Option<Outcome>, ApiError> {
    let patience = options.renew_every();
    let look = tokio::time::timeout(patience, claim.look(cluster, &options.identity)).await;
    look.unwrap_or_else(|_| Err(no_answer(patience)))
}

async fn ask(claim: &mut Claim, cluster: &Cluster, options: &ElectionOptions) -> Outcome {
    let patience = options.renew_every();
    let asked = claim.acquire_or_renew(cluster, &options.identity, options.duration);
    tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Outcome::Failed(no_answer(patience)))
}

fn no_answer(patience: Duration) -> ApiError {
    ApiError::new(ErrorClass::Timeout, format!("no answer from the API server within {} s", patience.as_secs_f32()))
}

fn in_words(claim: &Claim, holder: &str) -> String {
    let place = claim.place();
    match claim.whose {
        Whose::Ours => format!("the Lease `{place}` is held by `{holder}`"),
        Whose::Flux => {
            let namespace = &claim.namespace;
            format!(
                "the Lease `{place}` of Flux is held by `{holder}`, and nothing is written while it is\nhint: to go on without Flux: kubectl -n {namespace} scale deployment kustomize-controller source-controller --replicas=0"
            )
        }
    }
}

/// Renews the Leases of a term.
struct Keeper {
    cluster: Cluster,
    options: ElectionOptions,
    claims: Vec<Claim>,
    fence: Fence,
    standing: watch::Sender<Standing>,
    office: Office,
}

impl Keeper {
    /// Renews until stopped or lost; gives the claims back.
    async fn keep(mut self, lost: CancellationToken, stop: CancellationToken) -> Vec<Claim> {
        let mut pause = self.options.renew_every();
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return self.claims,
            }
            let until = self.until();
            let outcomes = tokio::select! {
                outcomes = renew(&mut self.claims, &self.cluster, &self.options) => outcomes,
                () = tokio::time::sleep_until(until) => Vec::new(),
                () = stop.cancelled() => return self.claims,
            };
            self.extend();
            let mut why = None;
            pause = self.options.renew_every();
            for (claim, outcome) in self.claims.iter().zip(outcomes) {
                match outcome {
                    Outcome::Held | Outcome::NoSuchPlace => {}
                    Outcome::Others { holder, .. } => why = Some(in_words(claim, &holder)),
                    Outcome::Failed(error) => {
                        tracing::warn!(lease = claim.place(), %error, "the Lease could not be renewed; tried again");
                        pause = self.options.look_every();
                    }
                }
            }
            if why.is_none() && Instant::now() >= self.until() {
                let seconds = self.options.write_for().as_secs_f32();
                why = Some(format!("a Lease could not be renewed for {seconds} s"));
            }
            if let Some(why) = why {
                tracing::error!(
                    lease = self.options.lease,
                    "this replica does not lead any more, and writes nothing: {why}"
                );
                self.fence.close();
                (self.office)(false);
                self.standing.send_replace(Standing::StandingBy(why));
                lost.cancel();
                return self.claims;
            }
        }
    }

    /// When the first Lease was renewed so long ago that no write may begin.
    fn until(&self) -> Instant {
        let since = self.claims.iter().filter_map(Claim::held_since).min();
        since.unwrap_or_else(Instant::now) + self.options.write_for()
    }

    fn extend(&self) {
        let begin = self.until().saturating_duration_since(Instant::now());
        let answer = begin + silence_max(self.options.duration).saturating_sub(self.options.write_for());
        self.fence.extend(begin, answer);
    }
}

async fn renew(claims: &mut [Claim], cluster: &Cluster, options: &ElectionOptions) -> Vec<Outcome> {
    join_all(claims.iter_mut().map(|claim| ask(claim, cluster, options))).await
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
