//! What to do about each alert, as a page: the chapter of docs/operations.md that alerts link to, as it was when this
//! version was built. Nothing of the cluster is in it.

use std::fmt::Write as _;
use std::sync::LazyLock;

const CHAPTER: &str = "Alerts";

/// The chapter in HTML: its headings are what links lead to, its text stays as it is.
pub(super) fn page() -> &'static str {
    static PAGE: LazyLock<String> = LazyLock::new(|| html(include_str!("../../docs/operations.md")));
    &PAGE
}

fn html(document: &str) -> String {
    let chapter = document.split("\n## ").find_map(|chapter| chapter.strip_prefix(CHAPTER)).unwrap_or_default();
    let mut page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Afresh: alerts</title>\n<style>body {{ max-width: 60em; margin: 2em auto; font-family: sans-serif }} \
         pre {{ white-space: pre-wrap }} :target {{ background: #ffd }}</style>\n<h1>{CHAPTER}</h1>\n"
    );
    let mut sections = chapter.split("\n### ");
    let introduction = sections.next().unwrap_or_default();
    let _ = writeln!(page, "<pre>{}</pre>", escaped(introduction.trim()));
    for section in sections {
        let (title, text) = section.split_once('\n').unwrap_or((section, ""));
        let anchor = escaped(&title.to_lowercase().replace(' ', "-"));
        let _ = writeln!(page, "<h2 id=\"{anchor}\">{}</h2>\n<pre>{}</pre>", escaped(title), escaped(text.trim()));
    }
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_of_the_chapter_can_be_linked_to() {
        let page = html("# A\n\n## Alerts\n\nFirst <this>.\n\n### The Alert\n\n1. a & b\n\n## Backup\n\nnone\n");
        assert!(page.contains("First &lt;this&gt;."), "{page}");
        assert!(page.contains("<h2 id=\"the-alert\">The Alert</h2>\n<pre>1. a &amp; b</pre>"), "{page}");
        assert!(!page.contains("Backup"), "{page}");
    }
}
