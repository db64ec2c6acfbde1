//! Regular expressions as kustomize reads them, which is as Go does.

use regex::Regex;

use crate::manifest::regular::translated;

pub fn compile(expression: &str) -> Result<Regex, String> {
    read(expression, |translated| translated)
}

/// The same, for whole values.
pub fn compile_whole(expression: &str) -> Result<Regex, String> {
    read(expression, |translated| format!("^(?:{translated})$"))
}

fn read(expression: &str, put: impl FnOnce(String) -> String) -> Result<Regex, String> {
    let regex = translated(expression).ok().and_then(|translated| Regex::new(&put(translated)).ok());
    regex.ok_or_else(|| format!("`{expression}` is not a regular expression"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_means_what_it_means_in_go() {
        for (expression, text, wanted) in [
            (r"\${NAME}", "${NAME}", true),
            (r"\${NAME}-[0-9]{2,3}", "${NAME}-12", true),
            (r"a{,2}", "a{,2}", true),
            (r"a{2}", "aa", true),
            (r"a{2,}?b", "aaab", true),
            (r"{a}", "{a}", true),
            (r"\Qa.b*\E.", "a.b*c", true),
            (r"\Qa.b*\E.", "axb*c", false),
            (r"[[]a]", "[a]", true),
            (r"[]a]", "]", true),
            (r"[^]a]", "b", true),
            (r"[a&&b]", "&", true),
            (r"[[:digit:][]+", "1[2", true),
            (r"[\w.]+", "a_1.b", true),
            (r"[^\W]", "_", true),
            (r"\d", "٣", false),
            (r"\<\>", "<>", true),
            (r"\p{Greek}\x{61}", "αa", true),
            (r"(?i)WEB|db", "Db", true),
            (r"web|", "", true),
            (r"a\b.b", "a-b", true),
        ] {
            let matches = compile_whole(expression).map(|regex| regex.is_match(text));
            assert_eq!(matches, Ok(wanted), "{expression} for {text}");
        }
        for expression in [
            "(",
            ")",
            "a)(b",
            "*",
            "a**",
            "a+?*",
            "a{2}{3}",
            "a{1001}",
            "a{2,1001}",
            "[a",
            r"a\",
            "{2}",
            r"\Z",
            "(?x)a",
        ] {
            assert!(compile(expression).is_err(), "{expression}");
        }
    }
}
