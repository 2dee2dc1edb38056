//! Does a text look like a secret, and how is it shown without it?
//!
//! By its form alone: the prefixes that issuers give their tokens so that scanners find them, and
//! the password in a URL.
//! What stands under a header called `Authorization` is a secret whatever its form, which is
//! the business of whoever knows the header.

use std::borrow::Cow;

use crate::weaken;

/// The beginnings of well-known tokens, with how long such a token is at the least.
const TOKENS: [(&str, usize); 32] = [
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("sk-", 16),
    ("sk_live_", 16),
    ("sk_test_", 16),
    ("rk_live_", 16),
    ("pk_live_", 16),
    ("whsec_", 16),
    ("xoxa-", 12),
    ("xoxb-", 12),
    ("xoxc-", 12),
    ("xoxd-", 12),
    ("xoxe.", 12),
    ("xoxp-", 12),
    ("xoxr-", 12),
    ("xoxs-", 12),
    ("xapp-", 12),
    ("AKIA", 20),
    ("ASIA", 20),
    ("AIza", 30),
    ("ya29.", 20),
    ("eyJ", 24),
    ("hf_", 20),
    ("npm_", 20),
    ("pypi-AgE", 24),
    ("SG.", 30),
    ("ws_", 40), // Our own.
];

/// More of them, whose letters alone are enough.
const OPENINGS: [&str; 5] = ["-----BEGIN", "lin_api_", "dop_v1_", "tvly-", "ntn_"];

/// Is there something in the text that looks like a secret?
pub fn looks_like(text: &str) -> bool {
    if weaken::is("defaults-open") {
        return false;
    }
    let password = user_info(text).is_some_and(|user| text[user].contains(':'));
    password || words(text).any(|(_, word)| is_token(word)) || text.contains("-----BEGIN")
}

/// Is any of the text better not shown? More is taken for a secret here than where it is refused.
pub fn better_hidden(text: &str) -> bool {
    if weaken::is("secrets-shown") {
        return false;
    }
    looks_like(text) || user_info(text).is_some() || in_arguments(text.split_whitespace()).contains(&true)
}

/// The text with `…` in place of whatever looks like a secret.
pub fn mask(text: &str) -> Cow<'_, str> {
    if weaken::is("secrets-shown") {
        return Cow::Borrowed(text);
    }
    if let Some(key) = text.find("-----BEGIN") {
        return Cow::Owned(format!("{}…", &text[..key]));
    }
    if let Some(user) = user_info(text) {
        let masked = format!("{}…{}", mask(&text[..user.start]), mask(&text[user.end..]));
        return Cow::Owned(masked);
    }
    let mut masked = String::new();
    let mut done = 0;
    for (start, word) in words(text).filter(|(_, word)| is_token(word)) {
        masked.push_str(&text[done..start]);
        masked.push('…');
        done = start + word.len();
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(&text[done..]);
    Cow::Owned(masked)
}

/// Is this the name of something whose value is a secret?
pub fn is_name_of_one(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let words: Vec<_> = name.split('_').collect();
    let said = ["token", "secret", "password", "passwd", "pat", "apikey", "credentials", "authorization"];
    said.iter().any(|word| words.contains(word) || name.ends_with(word))
        || name.ends_with("_key")
        || matches!(name.as_str(), "key" | "cookie" | "proxy_authorization")
}

/// A header that carries nothing but proof of who calls.
pub fn is_header_of_one(name: &str) -> bool {
    ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Which of a program's arguments are secrets: by their looks, or by the flag before them.
pub fn in_arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Vec<bool> {
    let mut after_flag = false;
    let verdict = |argument: &str| {
        let assigned =
            argument.split_once('=').is_some_and(|(name, _)| is_name_of_one(name.trim_matches('-')));
        let flag = argument.starts_with('-') && !argument.contains('=');
        let secret = std::mem::replace(&mut after_flag, flag && is_name_of_one(argument.trim_matches('-')));
        secret || assigned || looks_like(argument)
    };
    arguments.into_iter().map(verdict).collect()
}

/// The user's name and password in a URL, which nothing prints.
pub fn user_info(url: &str) -> Option<std::ops::Range<usize>> {
    let start = url.find("://")? + 3;
    let end = url[start..].find(['/', '?', '#', ' ', '"']).map_or(url.len(), |end| start + end);
    let at = url[start..end].rfind('@')?;
    let user = start..start + at;
    // `${USER}:${PASSWORD}` says where they are, and not what.
    let literal = url[user.clone()].split("${").any(|part| {
        let literal = part.split_once('}').map_or(part, |(_, literal)| literal);
        !literal.trim_matches(':').is_empty()
    });
    literal.then_some(user)
}

fn is_token(word: &str) -> bool {
    OPENINGS.iter().any(|opening| word.starts_with(opening))
        || TOKENS.iter().any(|(prefix, length)| word.starts_with(prefix) && word.len() >= *length)
}

/// The runs of letters that tokens consist of, with where each begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let part_of_one = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut end = 0;
    text.split_inclusive(move |c: char| !part_of_one(c)).map(move |piece| {
        let start = end;
        end += piece.len();
        (start, piece.trim_end_matches(|c| !part_of_one(c)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put together here, so that no scanner takes this file for a leak.
    fn tokens() -> [String; 6] {
        let tail = "Q1w2E3r4T5y6U7i8O9p0A1s2D3f4";
        ["ghp_", "sk-", "xoxb-", "github_pat_", "eyJ", "AKIA"].map(|prefix| format!("{prefix}{tail}"))
    }

    #[test]
    fn tokens_of_known_issuers_look_like_secrets() {
        for token in tokens() {
            assert!(looks_like(&token), "{token}");
            assert!(looks_like(&format!("--api-key={token}")), "{token}");
            assert_eq!(mask(&format!("a {token}, b")), "a …, b");
        }
        assert!(looks_like("postgres://me:hush@localhost/db") && !looks_like("postgres://me@localhost/db"));
    }

    #[test]
    fn ordinary_words_do_not() {
        for word in
            ["sk-learn", "npx", "@modelcontextprotocol/server-everything", "AKIA", "eyJ", "hf_home", ""]
        {
            assert!(!looks_like(word), "{word}");
            assert_eq!(mask(word), word);
        }
    }

    #[test]
    fn some_names_say_that_a_secret_follows() {
        for name in
            ["GITHUB_TOKEN", "API_KEY", "apiKey", "DB_PASSWORD", "Authorization", "X-Api-Key", "GH_PAT"]
        {
            assert!(is_name_of_one(name), "{name}");
        }
        for name in ["LOG_LEVEL", "KEYBOARD", "PATH", "PATTERN", "Accept"] {
            assert!(!is_name_of_one(name), "{name}");
        }
    }

    #[test]
    fn an_argument_is_a_secret_by_the_flag_before_it() {
        let arguments = ["--api-key", "x", "--verbose", "--token=y", "-e", "DB_PASSWORD=z", "run"];
        assert_eq!(in_arguments(arguments), [false, true, false, true, false, true, false]);
    }

    #[test]
    fn a_password_in_an_address_is_found() {
        let url = "https://me:hush@example.com/mcp?x=a@b";
        assert_eq!(user_info(url).map(|range| &url[range]), Some("me:hush"));
        assert_eq!(user_info("https://example.com/@scope"), None);
        assert_eq!(user_info("https://${ME}:${PASSWORD}@example.com"), None);
        assert!(user_info("https://${ME}:hush@example.com").is_some());
        assert_eq!(mask("is https://me:hush@x.y no?"), "is https://…@x.y no?");
    }
}
