//! A file in the form of /etc/hosts.

use std::net::IpAddr;

/// The addresses that the text has for a name, in its order; case does not matter.
#[must_use]
pub fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    };
    text.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_any_name_of_a_line() {
        let text = "# c\n10.0.0.1 one.example one\n::1 two # one\n10.0.0.2\tONE\njunk one\n";
        let all = |name| addresses(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(all("one"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(all("two"), ["::1"]);
        assert!(all("three").is_empty() && all("").is_empty());
    }
}
