//! The words for what becomes of a webhook delivery.

/// What became of a webhook delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Somebody who follows what was pushed looks at it now.
    Accepted,
    Ping,
    /// An event that moves no ref.
    Ignored,
    /// Nobody follows this repository and ref.
    Unmatched,
    /// It was delivered before.
    Replayed,
    /// The body is not what the forge would send.
    Malformed,
    MissingSignature,
    WrongSignature,
    /// The Receiver doesn't take this event.
    EventRefused,
    WrongMethod,
    /// There is no such address.
    UnknownPath,
    /// The secret, the sources or the Receiver are not there yet, or it is suspended.
    NotReady,
    TooLarge,
    /// The body did not come in time.
    TimedOut,
    /// The body ended before it was whole.
    BrokenOff,
    /// Others send so much at this moment that there is no room for this body.
    Crowded,
}

impl Delivery {
    /// Those that an alert counts: a series must be there before its first increase.
    pub(super) const ALERTED: [Delivery; 2] = [Delivery::WrongSignature, Delivery::MissingSignature];
    /// The senders that there are.
    pub(super) const FORGES: [&str; 7] =
        ["github", "gitlab", "gitea", "bitbucket", "generic", "generic-hmac", "unknown"];

    /// The word of the metric and of the log.
    pub fn label(self) -> &'static str {
        match self {
            Delivery::Accepted => "accepted",
            Delivery::Ping => "ping",
            Delivery::Ignored => "ignored",
            Delivery::Unmatched => "unmatched",
            Delivery::Replayed => "replayed",
            Delivery::Malformed => "malformed",
            Delivery::MissingSignature => "missing_signature",
            Delivery::WrongSignature => "wrong_signature",
            Delivery::EventRefused => "event_refused",
            Delivery::WrongMethod => "wrong_method",
            Delivery::UnknownPath => "unknown_path",
            Delivery::NotReady => "not_ready",
            Delivery::TooLarge => "too_large",
            Delivery::TimedOut => "timed_out",
            Delivery::BrokenOff => "broken_off",
            Delivery::Crowded => "crowded",
        }
    }
}
