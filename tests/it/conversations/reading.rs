//! How conversations are found, read and removed.

use waystation::store::conversations::{
    Changes, Deletion, Error, Failed, Fork, Listing, NewSummary, Order, Outline, Reading, Role, Search, Sort,
    State,
};

use super::*;

fn titled(title: &str, tags: &[&str]) -> NewConversation {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    NewConversation { title: Some(title.to_owned()), tags, ..NewConversation::default() }
}

async fn titles(mine: &Arc<dyn Owned>, listing: Listing) -> Vec<String> {
    let page = mine.list(Listing { limit: 100, ..listing }, at(500)).await.unwrap();
    page.items.into_iter().map(|chat| chat.title.unwrap_or_default()).collect()
}

#[tokio::test]
async fn conversations_are_listed_as_they_are_wanted() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let one = ada.create(titled("Ärger mit Ölen", &["work", "oil"]), at(0)).await.unwrap();
    let two = NewConversation { model: Some("b/model".into()), ..titled("Two", &["work"]) };
    ada.create(two, at(1)).await.unwrap();
    ada.create(titled("Three", &[]), at(2)).await.unwrap();
    assert_eq!(titles(&ada, Listing::default()).await, ["Three", "Two", "Ärger mit Ölen"]);
    let archived = Changes { state: Some(State::Archived), ..Changes::default() };
    let changed = ada.change(one.id, archived, at(3)).await.unwrap();
    assert_eq!((changed.version, changed.title), (one.version + 1, one.title), "the rest stays");
    assert_eq!(titles(&ada, Listing::default()).await, ["Ärger mit Ölen", "Three", "Two"]);
    let created = Listing { sort: Sort::Created, ..Listing::default() };
    assert_eq!(titles(&ada, created).await, ["Three", "Two", "Ärger mit Ölen"]);
    for (listing, expected) in [
        (Listing { title: Some("ÖLEN".into()), ..Listing::default() }, "Ärger mit Ölen"),
        (Listing { tags: vec!["work".into()], state: Some(State::Active), ..Listing::default() }, "Two"),
        (Listing { tags: vec!["oil".into(), "work".into()], ..Listing::default() }, "Ärger mit Ölen"),
        (Listing { model: Some("b/model".into()), ..Listing::default() }, "Two"),
        (Listing { updated_after: Some(at(2)), ..Listing::default() }, "Ärger mit Ölen"),
    ] {
        assert_eq!(titles(&ada, listing.clone()).await, [expected], "{listing:?}");
    }
    let stale = Changes { expected_version: Some(one.version), ..Changes::default() };
    assert_eq!(ada.change(one.id, stale, at(4)).await, Err(Error::Conflict { version: changed.version }));
}

#[tokio::test]
async fn a_cursor_goes_on_where_it_was_whatever_comes_meanwhile() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    for n in 0..25 {
        // Some at the same time.
        ada.create(titled(&n.to_string(), &[]), at(n / 3)).await.unwrap();
    }
    let mut listing = Listing { sort: Sort::Created, limit: 4, ..Listing::default() };
    let mut read = Vec::new();
    loop {
        let page = ada.list(listing.clone(), at(100)).await.unwrap();
        read.extend(page.items.into_iter().map(|chat| chat.title.unwrap()));
        ada.create(titled("new", &[]), at(50)).await.unwrap();
        listing.cursor = page.next;
        if listing.cursor.is_none() {
            break;
        }
    }
    assert_eq!(read, (0..25).rev().map(|n| n.to_string()).collect::<Vec<_>>());
    let page = ada.list(Listing { limit: 1, ..Listing::default() }, at(100)).await.unwrap();
    let other = Listing { sort: Sort::Created, cursor: page.next, limit: 1, ..Listing::default() };
    assert_eq!(ada.list(other, at(100)).await, Err(Error::Cursor), "of another order");
}

#[tokio::test]
async fn messages_are_read_both_ways_while_others_are_added() {
    let here = Here::new(roomy()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "q0", "a0").await;
    for n in 1..5 {
        talk(&ada, Place::In(id), &format!("q{n}"), &format!("a{n}")).await;
    }
    let mut reading = Reading { limit: 3, ..Reading::default() };
    let mut read = Vec::new();
    loop {
        let page = ada.messages(id, reading.clone()).await.unwrap();
        read.extend(page.items.iter().map(|message| message.seq));
        talk(&ada, Place::In(id), "more", "more").await;
        reading.cursor = page.next;
        if reading.cursor.is_none() {
            break;
        }
    }
    assert_eq!(read, (1..=10).rev().collect::<Vec<_>>());
    let oldest = Reading { order: Order::OldestFirst, limit: 4, ..Reading::default() };
    let page = ada.messages(id, oldest.clone()).await.unwrap();
    assert_eq!(texts(&page.items), ["q0", "a0", "q1", "a1"]);
    let turn = page.items[2].turn;
    let page = ada.messages(id, Reading { cursor: page.next, ..oldest.clone() }).await.unwrap();
    assert_eq!(texts(&page.items), ["q2", "a2", "q3", "a3"]);
    let page = ada.messages(id, Reading { turn, ..oldest }).await.unwrap();
    assert_eq!(texts(&page.items), ["q1", "a1"]);
}

#[tokio::test]
async fn a_fork_has_what_was_said_until_then_and_goes_its_own_way() {
    let here = Here::new(Options { keys: Some(sealed::keys(1, &[])), ..roomy() }).await;
    let ada = here.ada();
    let id = talk(&ada, Place::New(titled("T", &["x"])), "q1", "a1").await;
    let file = ada.attach(id, "text/plain".into(), b"file".to_vec()).await.unwrap();
    let until = ada.conversation(id).await.unwrap().head;
    talk(&ada, Place::In(id), "q2", "a2").await;
    let fork = ada.fork(id, Fork { at: until, model: Some("m".into()), title: None }, at(9)).await.unwrap();
    assert_eq!((fork.title.as_deref(), fork.model.as_deref(), fork.messages), (Some("T"), Some("m"), 2));
    talk(&ada, Place::In(fork.id), "q3", "a3").await;
    let path = ada.path(fork.id, None, EVERYTHING).await.unwrap();
    assert_eq!(texts(&path.messages), ["a3", "q3", "a1", "q1"]);
    assert_eq!(texts(&ada.path(id, None, EVERYTHING).await.unwrap().messages), ["a2", "q2", "a1", "q1"]);
    // The file goes with the last that it is attached to.
    let blobs = async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM blob");
        count.fetch_one(&mut here.rows().await).await.unwrap()
    };
    assert_eq!(ada.attach(fork.id, "text/plain".into(), b"file".to_vec()).await.unwrap(), file);
    assert_eq!(blobs().await, 1, "kept once");
    assert_eq!(ada.delete(id).await.unwrap(), Deletion::Gone { messages: 4 });
    assert_eq!(ada.attached(fork.id, file.clone()).await.unwrap(), ("text/plain".into(), b"file".to_vec()));
    ada.delete(fork.id).await.unwrap();
    assert_eq!((blobs().await, ada.attached(fork.id, file).await), (0, Err(Error::NotFound)));
}

#[tokio::test]
async fn what_is_cleared_begins_anew() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let id = talk(&ada, Place::New(titled("T", &[])), "q1", "a1").await;
    assert_eq!(ada.clear(id, at(5)).await.unwrap(), 2);
    let chat = ada.conversation(id).await.unwrap();
    assert_eq!((chat.messages, chat.tokens, chat.head, chat.title.as_deref()), (0, 0, None, Some("T")));
    talk(&ada, Place::In(id), "q2", "a2").await;
    assert_eq!(texts(&ada.path(id, None, EVERYTHING).await.unwrap().messages), ["a2", "q2"]);
    let words = Search { query: "q1".into(), limit: 9, ..Search::default() };
    assert_eq!(ada.search(words).await.unwrap().hits, []);
}

#[tokio::test]
async fn a_few_summaries_are_kept() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "q1", "a1").await;
    let upto = ada.conversation(id).await.unwrap().head.unwrap();
    for n in 0..20 {
        let text = n.to_string();
        let summary = NewSummary { upto, model: "m".into(), text, tokens: 1, source: "s".into() };
        ada.keep_summary(id, summary, at(n)).await.unwrap();
    }
    let summaries = ada.summaries(id).await.unwrap();
    let kept: Vec<_> = summaries.iter().map(|summary| summary.text.as_str()).collect();
    assert_eq!(kept, ["19", "18", "17", "16", "15", "14", "13", "12"]);
}

#[tokio::test]
async fn words_are_found_in_clear_and_sealed() {
    for keys in [None, Some(sealed::keys(1, &[]))] {
        let here = Here::new(Options { keys, ..roomy() }).await;
        let ada = here.ada();
        let one = talk(&ada, anew(), "Where is the Needle?", "In the haystack, \"I\" think (or not)").await;
        let two = talk(&ada, anew(), "the hay", "nothing").await;
        let find = async |search: Search| {
            let found = ada.search(Search { limit: 9, ..search }).await.unwrap();
            assert!(!found.truncated);
            found.hits.into_iter().map(|hit| (hit.conversation, hit.role, hit.snippet)).collect::<Vec<_>>()
        };
        let words = |query: &str| Search { query: query.to_owned(), ..Search::default() };
        let question = (one, Role::User, "Where is the Needle?".to_owned());
        assert_eq!(find(words("NEEDLE the")).await, [question]);
        assert_eq!(find(words("hay")).await.len(), 2, "words that begin so");
        assert_eq!(find(Search { conversation: Some(two), ..words("hay") }).await.len(), 1);
        assert_eq!(find(Search { role: Some(Role::User), ..words("hay") }).await.len(), 1);
        assert_eq!(find(Search { after: Some(at(0)), ..words("the") }).await.len(), 1, "only the answer");
        assert_eq!(find(Search { before: Some(at(1)), ..words("the") }).await.len(), 2, "only the questions");
        for odd in ["needle haystack", "", "\"", "* AND", "owner : x", "NEAR(", "-", "a\u{0}b"] {
            assert_eq!(find(words(odd)).await, [], "{odd}");
        }
        assert_eq!(find(words("\"think\" (or")).await.len(), 1);
        ada.delete(one).await.unwrap();
        assert_eq!(find(words("needle")).await, []);
    }
}

#[tokio::test]
async fn what_nobody_uses_goes_in_its_time() {
    const DAY: i64 = 24 * 60 * 60;
    let options = Options { longest: Some(Duration::from_secs(100 * 24 * 60 * 60)), ..Options::default() };
    let here = Here::new(options).await;
    let ada = here.ada();
    let short = NewConversation { retention_days: Some(2), ..NewConversation::default() };
    let short = ada.create(short, at(0)).await.unwrap();
    let long = NewConversation { retention_days: Some(1_000), ..NewConversation::default() };
    let long = ada.create(long, at(0)).await.unwrap();
    assert_eq!((short.expires, long.expires), (at(2 * DAY), at(30 * DAY)), "only shorter");
    for _ in 0..45 {
        ada.create(NewConversation::default(), at(0)).await.unwrap();
    }
    let used = ada.change(long.id, Changes::default(), at(90 * DAY)).await.unwrap();
    assert_eq!(used.expires, at(100 * DAY), "not longer than all");
    assert_eq!(here.all.sweep(at(2 * DAY - 1)).await.unwrap(), Default::default());
    assert_eq!(here.all.sweep(at(2 * DAY)).await.unwrap().conversations, 1);
    assert_eq!(ada.conversation(short.id).await, Err(Error::NotFound));
    let mut batches = Vec::new();
    loop {
        let swept = here.all.sweep(at(30 * DAY)).await.unwrap();
        batches.push(swept.conversations);
        if !swept.more {
            break;
        }
    }
    assert_eq!(batches, [20, 20, 5], "a few at a time");
    assert!(ada.conversation(long.id).await.is_ok());
    // One in which a turn runs is not taken away under it.
    let running = NewConversation { retention_days: Some(1), ..NewConversation::default() };
    let turn = begun(ada.begin(say(Place::New(running), "q"), at(0)).await.unwrap());
    assert_eq!(here.all.sweep(at(50 * DAY)).await.unwrap().conversations, 0);
    here.all.recover(at(50 * DAY)).await.unwrap();
    assert_eq!(ada.turn(turn.lease.turn).await.unwrap().error.as_deref(), Some("crashed"));
}

fn sizes(outline: &Outline) -> Vec<(Role, i64)> {
    outline.steps.iter().map(|step| (step.role, step.tokens)).collect()
}

/// By the sizes alone the path is the same, with branches beside it and with what nothing answers on it.
#[tokio::test]
async fn an_outline_is_of_the_path_and_of_nothing_beside_it() {
    let here = Here::new(roomy()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "first", "one").await;
    let fork_at = ada.conversation(id).await.unwrap().head;
    for n in 0..40 {
        let mut turn = say(Place::In(id), &format!("question {n}"));
        // Now and then a branch is begun, or nothing is answered.
        turn.parent = (n % 7 == 3).then_some(fork_at).flatten();
        let begun = begun(ada.begin(turn, at(n)).await.unwrap());
        if n % 5 == 4 {
            let failed = Failed { code: "upstream_timeout".into(), entry: None, reservation: None };
            ada.fail(begun.lease, failed, at(n)).await.unwrap();
        } else {
            ada.finish(begun.lease, answer(&format!("answer {n}")), at(n)).await.unwrap();
        }
        let (path, outline) =
            (ada.path(id, None, EVERYTHING).await.unwrap(), ada.outline(id, None, EVERYTHING).await.unwrap());
        assert_eq!(
            sizes(&outline),
            path.messages.iter().map(|one| (one.role, one.tokens)).collect::<Vec<_>>(),
            "{n}"
        );
        for step in &outline.steps {
            let budget = Budget { tokens: i64::MAX, messages: step.nth };
            let part = ada.path(id, None, budget).await.unwrap().messages;
            assert_eq!(
                part.last().map(|one| (one.role, one.tokens)),
                Some((step.role, step.tokens)),
                "{n} {step:?}"
            );
        }
    }
    assert!(here.bob().outline(id, None, EVERYTHING).await.is_err(), "another's is not there");
}

#[tokio::test]
async fn a_hundred_thousand_messages_are_read_as_far_as_they_are_wanted() {
    let here = Here::new(roomy()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "q", "a").await;
    let many = "WITH RECURSIVE n (n) AS (SELECT 3 UNION ALL SELECT n + 1 FROM n WHERE n < 100000)
         INSERT INTO message (id, conversation, seq, parent, parent_id, depth, role, body, tokens, reported, created)
         SELECT printf('msg_%022d', n), 1, n, n - 1, printf('msg_%022d', n - 1), n - 1,
         iif(n % 2, 'user', 'assistant'), CAST('text ' || n AS BLOB), 10, 1, 0 FROM n;
         UPDATE conversation SET messages = 100000, head = 100000";
    sqlx::raw_sql(many).execute(&mut here.rows().await).await.unwrap();
    let page = ada.messages(id, Reading { limit: 200, ..Reading::default() }).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].seq, page.items[199].seq), (200, 100_000, 99_801));
    let path = ada.path(id, None, Budget { tokens: 1_000, messages: u32::MAX }).await.unwrap();
    assert_eq!((path.messages.len(), path.whole), (101, 100_000), "the one beyond the budget too");
    assert_eq!(path.messages[100].text, "text 99900");
    let path = ada.path(id, None, Budget { tokens: i64::MAX, messages: 50 }).await.unwrap();
    assert_eq!(path.messages.len(), 50);
    let path = ada.path(id, None, EVERYTHING).await.unwrap();
    assert_eq!((path.messages.len(), path.messages[99_999].text.as_str()), (100_000, "q"));
    for budget in
        [EVERYTHING, Budget { tokens: 1_000, messages: u32::MAX }, Budget { tokens: i64::MAX, messages: 50 }]
    {
        let outline = ada.outline(id, None, budget).await.unwrap();
        let path = ada.path(id, None, budget).await.unwrap();
        assert_eq!(
            sizes(&outline),
            path.messages.iter().map(|one| (one.role, one.tokens)).collect::<Vec<_>>()
        );
    }
    talk(&ada, Place::In(id), "on", "on").await;
    assert_eq!(ada.conversation(id).await.unwrap().messages, 100_002);
}
