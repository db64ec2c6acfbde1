//! One delivery: its head and its body in, the answer out. Asks nobody, waits for nothing; whoever is concerned is told
//! through [`Announce`], which doesn't wait either.
//!
//! ```text
//!  head ── who sends, is there a claim? ──▶ Letter ── body, piece by piece ──▶ genuine? ── what moved? ── who follows?
//!    └── no: answered, the body is not read
//! ```

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method, StatusCode};
use secrecy::ExposeSecret;

use super::announce::Announce;
use super::deliveries::Deliveries;
use super::known::{Addressee, Hook, HookKind, Known};
use super::payload::{self, Forge, News};
use super::signature::{Claim, Content, Examination};
use crate::api::RECEIVER_PATH;
use crate::report::Delivery;

/// Where all forges may deliver.
pub const WEBHOOK_PATH: &str = "/webhook";

/// What `/webhook` answers. What is genuine and leads to nothing is no error: forges turn hooks off that fail often.
fn status(outcome: Delivery) -> StatusCode {
    match outcome {
        Delivery::Accepted => StatusCode::ACCEPTED,
        Delivery::Ping | Delivery::Ignored | Delivery::Unmatched | Delivery::Replayed => StatusCode::OK,
        Delivery::MissingSignature | Delivery::WrongSignature => StatusCode::UNAUTHORIZED,
        Delivery::Malformed | Delivery::EventRefused | Delivery::BrokenOff => StatusCode::BAD_REQUEST,
        Delivery::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        Delivery::UnknownPath => StatusCode::NOT_FOUND,
        Delivery::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Delivery::TimedOut => StatusCode::REQUEST_TIMEOUT,
        Delivery::NotReady | Delivery::Crowded => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// What Flux's Receiver answers.
fn status_of_receiver(outcome: Delivery) -> StatusCode {
    match outcome {
        Delivery::Accepted | Delivery::Unmatched => StatusCode::OK,
        Delivery::MissingSignature | Delivery::WrongSignature => StatusCode::BAD_REQUEST,
        other => status(other),
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub outcome: Delivery,
    /// The forge, or the type of the Receiver, as far as it is known.
    pub forge: &'static str,
    pub text: Cow<'static, str>,
}

/// A delivery whose head was taken in; its body comes in piece by piece.
pub struct Letter {
    route: Route,
    forge: Forge,
    event: String,
    id: Option<String>,
    form: bool,
    examination: Examination,
}

enum Route {
    Webhook,
    Receiver(Arc<Hook>),
}

/// Longer tokens, ids and names of events are nobody's.
const HEADER_BYTES_MAX: usize = 4096;

pub struct Desk {
    known: Arc<Known>,
    deliveries: Mutex<Deliveries>,
    announce: Arc<dyn Announce>,
}

impl Desk {
    pub fn new(known: Arc<Known>, announce: Arc<dyn Announce>) -> Self {
        Self { known, deliveries: Mutex::default(), announce }
    }

    /// Takes in the head: either the body is wanted, or the answer is known.
    pub fn open(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Letter, Answer> {
        if path.starts_with(RECEIVER_PATH) {
            return self.open_for_receiver(path, headers);
        }
        let refuse = |outcome, forge, text| Err(Route::Webhook.answer(outcome, forge, text));
        if path != WEBHOOK_PATH {
            return refuse(
                Delivery::UnknownPath,
                "unknown",
                "nothing is here: deliver to `/webhook`, or to the path of a Receiver",
            );
        }
        if method != Method::POST {
            return refuse(Delivery::WrongMethod, "unknown", "deliveries are sent by POST");
        }
        let Some((forge, event)) = sender(headers) else {
            let text =
                "who sends this? there is no header of GitHub, GitLab, Gitea, Forgejo or Bitbucket, and no X-Signature";
            return refuse(Delivery::MissingSignature, "unknown", text);
        };
        let Some(secret) = self.known.secret() else {
            return refuse(Delivery::NotReady, forge.label(), "no secret is known to check this delivery with");
        };
        if !self.known.is_listed() {
            return refuse(Delivery::NotReady, forge.label(), "the sources of the cluster are not known yet");
        }
        let claim = match claim(forge, headers) {
            Ok(claim) => claim,
            Err(header) => {
                let text = format!("`{header}` is missing: set the secret of the webhook");
                return Err(Route::Webhook.answer(Delivery::MissingSignature, forge.label(), text));
            }
        };
        Letter::new(Route::Webhook, forge, event, claim, secret.expose_secret(), headers)
    }

    fn open_for_receiver(&self, path: &str, headers: &HeaderMap) -> Result<Letter, Answer> {
        let Some(hook) = self.known.hook(path) else {
            return Err(Route::Webhook.answer(Delivery::UnknownPath, "unknown", "no Receiver has this path"));
        };
        let route = Route::Receiver(hook.clone());
        if let Some(why) = &hook.closed {
            return Err(route.answer(
                Delivery::NotReady,
                hook.kind.label(),
                format!("the Receiver takes nothing: {why}"),
            ));
        }
        let (forge, names, event) = match hook.kind {
            HookKind::GitHub => (Forge::GitHub, &["x-hub-signature-256", "x-hub-signature"][..], "x-github-event"),
            HookKind::Bitbucket => (Forge::Bitbucket, &["x-hub-signature-256", "x-hub-signature"][..], "x-event-key"),
            HookKind::GitLab => (Forge::GitLab, &["x-gitlab-token"][..], "x-gitlab-event"),
            HookKind::GenericHmac => (Forge::Generic, &["x-signature"][..], ""),
            HookKind::Generic => (Forge::Generic, &[][..], ""),
        };
        let claim = match (hook.kind, names.iter().find_map(|name| text(headers, name))) {
            (HookKind::Generic, _) => Some(Claim::Address),
            (_, None) => {
                let text = format!("`{}` is missing", names.first().copied().unwrap_or_default());
                return Err(route.answer(Delivery::MissingSignature, hook.kind.label(), text));
            }
            (HookKind::GitLab, Some(token)) => Some(Claim::Token(token.into())),
            (_, Some(code)) => Claim::prefixed(code),
        };
        let event = text(headers, event).unwrap_or_default().to_owned();
        Letter::new(route, forge, event, claim, hook.token.expose_secret(), headers)
    }

    /// The body is whole.
    pub fn close(&self, letter: Letter, body: &[u8]) -> Answer {
        let Letter { route, forge, event, id, form, examination } = letter;
        let Some(content) = examination.finish() else { return wrong(&route, forge) };
        match &route {
            Route::Receiver(hook) => {
                let refused = !hook.events.is_empty()
                    && matches!(hook.kind, HookKind::GitHub | HookKind::GitLab | HookKind::Bitbucket)
                    && !hook.events.iter().any(|wanted| wanted.eq_ignore_ascii_case(&event));
                if refused {
                    let text = "the Receiver does not take this event";
                    return route.answer(Delivery::EventRefused, hook.kind.label(), text);
                }
                self.for_receiver(hook, &payload::read(forge, &event, form, body).unwrap_or(News::Other))
            }
            Route::Webhook => match payload::read(forge, &event, form, body) {
                Ok(news) => self.for_all(forge, id.as_deref(), content, &news),
                Err(error) => route.answer(Delivery::Malformed, forge.label(), error.to_string()),
            },
        }
    }

    fn for_all(&self, forge: Forge, id: Option<&str>, content: Content, news: &News) -> Answer {
        let answer = |outcome, text: Cow<'static, str>| Route::Webhook.answer(outcome, forge.label(), text);
        let push = match news {
            News::Ping => return answer(Delivery::Ping, "pong".into()),
            News::Other => return answer(Delivery::Ignored, "nothing to do: this event moves no ref".into()),
            News::Push(push) => push,
        };
        let followers = self.known.followers(push);
        // not remembered: a source that is made in a moment may be told of it by a second delivery
        if followers.is_empty() {
            return answer(Delivery::Unmatched, "nothing to do: no source follows this".into());
        }
        if !self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).take(id, content, push) {
            return answer(Delivery::Replayed, "nothing to do: this was delivered before".into());
        }
        let count = followers.len();
        for (key, hint) in followers {
            self.announce.source(&key, hint);
        }
        answer(Delivery::Accepted, told(count).into())
    }

    fn for_receiver(&self, hook: &Arc<Hook>, news: &News) -> Answer {
        let push = if let News::Push(push) = news { Some(push) } else { None };
        let addressees = self.known.addressees(hook, push);
        let outcome = if addressees.is_empty() { Delivery::Unmatched } else { Delivery::Accepted };
        let count = addressees.len();
        for (addressee, hint) in addressees {
            match addressee {
                Addressee::Source(key) => self.announce.source(&key, hint),
                Addressee::Application(key) => self.announce.application(&key),
            }
        }
        Route::Receiver(hook.clone()).answer(outcome, hook.kind.label(), told(count))
    }
}

impl Letter {
    fn new(
        route: Route,
        forge: Forge,
        event: String,
        claim: Option<Claim>,
        secret: &[u8],
        headers: &HeaderMap,
    ) -> Result<Letter, Answer> {
        let Some(claim) = claim else { return Err(wrong(&route, forge)) };
        let examination = Examination::new(claim, secret);
        if !examination.may_be_genuine() {
            return Err(wrong(&route, forge));
        }
        let form = text(headers, "content-type").is_some_and(|t| t.starts_with("application/x-www-form-urlencoded"));
        let ids = [
            "x-gitea-delivery",
            "x-forgejo-delivery",
            "x-github-delivery",
            "x-gitlab-event-uuid",
            "x-request-uuid",
            "x-request-id",
        ];
        let id = ids.iter().find_map(|name| text(headers, name)).map(str::to_owned);
        Ok(Letter { route, forge, event, id, form, examination })
    }

    /// The next piece of the raw body.
    pub fn update(&mut self, piece: &[u8]) {
        self.examination.update(piece);
    }

    /// The answer to a body that is not taken in.
    pub fn unread(&self, outcome: Delivery) -> Answer {
        let text = match outcome {
            Delivery::TooLarge => "the body is too large",
            Delivery::TimedOut => "the body did not come in time",
            Delivery::Crowded => "there is no room for this body at the moment",
            _ => "the body ended before it was whole",
        };
        self.route.answer(outcome, self.route.label(self.forge), text)
    }
}

impl Route {
    fn label(&self, forge: Forge) -> &'static str {
        match self {
            Route::Webhook => forge.label(),
            Route::Receiver(hook) => hook.kind.label(),
        }
    }

    fn answer(&self, outcome: Delivery, forge: &'static str, text: impl Into<Cow<'static, str>>) -> Answer {
        let status = match self {
            Route::Webhook => status(outcome),
            Route::Receiver(_) => status_of_receiver(outcome),
        };
        Answer { status, outcome, forge, text: text.into() }
    }
}

impl HookKind {
    pub fn of(name: &str) -> Option<HookKind> {
        [HookKind::GitHub, HookKind::GitLab, HookKind::Bitbucket, HookKind::GenericHmac, HookKind::Generic]
            .into_iter()
            .find(|kind| kind.label() == name)
    }

    pub fn label(self) -> &'static str {
        match self {
            HookKind::GitHub => "github",
            HookKind::GitLab => "gitlab",
            HookKind::Bitbucket => "bitbucket",
            HookKind::GenericHmac => "generic-hmac",
            HookKind::Generic => "generic",
        }
    }
}

fn wrong(route: &Route, forge: Forge) -> Answer {
    let text = "the signature is not that of this body with our secret";
    route.answer(Delivery::WrongSignature, route.label(forge), text)
}

fn told(count: usize) -> String {
    format!("told: {count}")
}

/// Who sends, by the header of its event. Gitea and Forgejo also send GitHub's.
fn sender(headers: &HeaderMap) -> Option<(Forge, String)> {
    let known = [
        ("x-forgejo-event", Forge::Gitea),
        ("x-gitea-event", Forge::Gitea),
        ("x-github-event", Forge::GitHub),
        ("x-gitlab-event", Forge::GitLab),
        ("x-event-key", Forge::Bitbucket),
    ];
    let named = known.iter().find_map(|(name, forge)| text(headers, name).map(|event| (*forge, event.to_owned())));
    named.or_else(|| headers.contains_key("x-signature").then(|| (Forge::Generic, String::new())))
}

/// What shows who sends; `None`: a header is there that can't be right. An error names the header that is missing.
fn claim(forge: Forge, headers: &HeaderMap) -> Result<Option<Claim>, &'static str> {
    let prefixed = |name| text(headers, name).map(Claim::prefixed);
    let bare = |name| text(headers, name).map(Claim::bare);
    match forge {
        Forge::GitHub => prefixed("x-hub-signature-256").ok_or("X-Hub-Signature-256"),
        Forge::Gitea => bare("x-forgejo-signature")
            .or_else(|| bare("x-gitea-signature"))
            .or_else(|| prefixed("x-hub-signature-256"))
            .ok_or("X-Gitea-Signature"),
        Forge::GitLab => {
            text(headers, "x-gitlab-token").map(|token| Some(Claim::Token(token.into()))).ok_or("X-Gitlab-Token")
        }
        Forge::Bitbucket => {
            prefixed("x-hub-signature-256").or_else(|| prefixed("x-hub-signature")).ok_or("X-Hub-Signature")
        }
        Forge::Generic => prefixed("x-signature").ok_or("X-Signature"),
    }
}

/// A header's text; empty, overlong and unreadable ones count as absent.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = if name.is_empty() { None } else { headers.get(name) };
    value?.to_str().ok().filter(|text| !text.is_empty() && text.len() <= HEADER_BYTES_MAX)
}
