//! Which known word may a wrong one have been meant for?

/// The known word most like this one, if there is one that is like it at all.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |word: &str| word.to_lowercase().replace(['-', '_'], "");
    let meant = plain(word);
    let far = (word.chars().count() / 3).max(1);
    let rated = known.into_iter().map(|one| (strsim::damerau_levenshtein(&meant, &plain(one)), one));
    rated.filter(|(steps, _)| *steps <= far).min_by_key(|(steps, _)| *steps).map(|(_, one)| one)
}

/// A question to put behind a complaint, or what there is instead.
pub fn did_you_mean(word: &str, known: &[&str]) -> String {
    match (nearest(word, known.iter().copied()), known) {
        (Some(one), _) => format!("did you mean `{one}`?"),
        (None, []) => String::new(),
        (None, _) => format!("there are {}", list(known)),
    }
}

/// `a`, `b` and `c`.
pub fn list(words: &[&str]) -> String {
    let ticked: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match ticked.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_understood() {
        let known = ["address", "admin", "body_limit"];
        let check = |word, meant: Option<&str>| assert_eq!(nearest(word, known), meant, "{word}");
        check("adress", Some("address"));
        check("bodyLimit", Some("body_limit"));
        check("amdin", Some("admin"));
        check("colour", None);
    }

    #[test]
    fn what_there_is_is_told_where_nothing_is_alike() {
        assert_eq!(did_you_mean("colour", &["a", "b", "c"]), "there are `a`, `b` and `c`");
        assert_eq!(did_you_mean("adress", &["address"]), "did you mean `address`?");
    }
}
