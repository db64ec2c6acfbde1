//! What is done about changes that others make to what is declared: put back, reported, or not looked at.

use crate::api;

/// The annotation `afresh.dev/drift`. The live object's wins over the one in Git, and that over the Kustomization's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriftMode {
    /// Put back.
    #[default]
    Correct,
    /// Reported, and left until Git changes the object.
    Warn,
    /// Not looked at until Git changes the object.
    Off,
}

impl DriftMode {
    pub const KEY: &str = api::DRIFT;
    pub const VALUES: &str = "`correct`, `warn` or `off`";

    /// Without regard to case, as the annotations of Flux; `None`: it is not served.
    pub fn parse(text: &str) -> Option<Self> {
        let modes = [("correct", Self::Correct), ("warn", Self::Warn), ("off", Self::Off)];
        modes.into_iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, mode)| mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_words_are_served_and_nothing_else() {
        for (text, mode) in [
            ("correct", Some(DriftMode::Correct)),
            ("Warn", Some(DriftMode::Warn)),
            ("OFF", Some(DriftMode::Off)),
            ("", None),
            ("disabled", None),
            (" warn", None),
        ] {
            assert_eq!(DriftMode::parse(text), mode, "{text}");
        }
    }
}
