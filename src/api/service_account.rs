//! Names of service accounts.

/// The longest name of an object (a DNS subdomain, RFC 1123).
const NAME_BYTES_MAX: usize = 253;

/// Whether a service account can be called so.
pub fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let fits = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        !part.is_empty() && bytes.iter().all(fits) && bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-'
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_subdomain() {
        for name in ["team", "team-a.deployer", "0"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", "Team", "a:b", "a/b", "-a", "a-", "a..b", "a\r\nImpersonate-Group: system:masters", &"a".repeat(254)]
        {
            assert!(!is_name(name), "{name}");
        }
    }
}
