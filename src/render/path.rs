//! Paths inside a tree: relative, with `/`, without `.` and `..`; the root is `""`.

/// Why a path isn't one inside the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    Absolute,
    Climbs,
}

/// Appends a relative path to a directory's, resolving `.` and `..` by name.
pub(super) fn join(directory: &str, relative: &str) -> Result<String, Escape> {
    if relative.starts_with('/') {
        return Err(Escape::Absolute);
    }
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or(Escape::Climbs)?;
            }
            name => parts.push(name),
        }
    }
    Ok(parts.join("/"))
}

/// `spec.path` as people write it: `./apps`, `apps/` and `/apps` are all `apps`, as in Flux. No `..`, even if it stays
/// inside.
pub(super) fn clean(path: &str) -> Result<String, Escape> {
    if path.split('/').any(|part| part == "..") {
        return Err(Escape::Climbs);
    }
    join("", path.trim_start_matches('/'))
}

/// The directory a path is in, and the last name.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// `directory/name`, or `name` at the root.
pub(super) fn child(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_never_leave_the_tree() {
        for (path, wanted) in [
            ("./envs/prod", Ok("envs/prod")),
            ("envs//prod/", Ok("envs/prod")),
            ("/envs", Ok("envs")),
            ("", Ok("")),
            ("./", Ok("")),
            ("../x", Err(Escape::Climbs)),
            ("a/../b", Err(Escape::Climbs)),
        ] {
            assert_eq!(clean(path), wanted.map(str::to_owned), "{path}");
        }
        for (directory, relative, wanted) in [
            ("envs/prod", "../../templates", Ok("templates")),
            ("envs/prod", "values.yaml", Ok("envs/prod/values.yaml")),
            ("envs", "..", Ok("")),
            ("envs", "../..", Err(Escape::Climbs)),
            ("envs", "/etc", Err(Escape::Absolute)),
        ] {
            assert_eq!(join(directory, relative), wanted.map(str::to_owned), "{relative}");
        }
    }
}
