//! What is said of a configuration with something wrong in it?

use waystation::config::{Complaint, Complaints, Config, Environment, Place};

/// All that is wrong with a text.
fn complaints(text: &str, variables: &[(&str, &str)]) -> Vec<Complaint> {
    let environment = variables.iter().copied().collect::<Environment>();
    match Config::parse("routes.toml", text, &environment) {
        Ok(_) => Vec::new(),
        Err(complaints) => complaints.iter().cloned().collect(),
    }
}

/// The text is wrong in one thing, on this line, and the complaint has these words in it.
#[track_caller]
fn check(text: &str, line: usize, words: &[&str]) {
    let complaints = complaints(text, &[]);
    let [complaint] = complaints.as_slice() else { panic!("{text}\n{complaints:#?}") };
    assert_eq!(complaint.line(), Some(line), "{text}\n{complaint}");
    let said = complaint.to_string();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// A table of a backend in which these lines stand from line 3 on.
fn backend(lines: &str) -> String {
    format!("[backends.x]\ncommand = \"x\"\n{lines}")
}

fn server(lines: &str) -> String {
    format!("[backends.x]\nurl = \"https://example.com/mcp\"\n{lines}")
}

#[test]
fn a_sampler_must_have_models() {
    let with = |name: &str, more: &str| {
        let models = "[backends.chat.openrouter]\n[backends.bare.openrouter]\npacks = [\"catalog\"]\n";
        let out = "[backends.out]\nopenrouter = {}\nenabled = false\n";
        format!("[backends.x]\ncommand = \"x\"\nsampler = {{ backend = \"{name}\"{more} }}\n{models}{out}")
    };
    assert_eq!(complaints(&with("chat", ""), &[]), []);
    check(
        &with("chta", ""),
        3,
        &["backends.x.sampler.backend", "no backend named \"chta\"", "did you mean `chat`?"],
    );
    check(&with("x", ""), 3, &["\"x\" has no models (openrouter)", "there are `chat`"]);
    check(&with("bare", ""), 3, &["no tool complete", "\"core\""]);
    check(&with("out", ""), 3, &["is left out"]);
    check(&with("chat", ", max_requests = 0"), 3, &["backends.x.sampler.max_requests", "write 10"]);
    check(
        &with("chat", ", max_tokens = 15"),
        3,
        &["backends.x.sampler.max_tokens", "16 tokens", "write 50000"],
    );
    check(&with("chat", ", most = 1"), 3, &["backends.x.sampler", "most"]);
    check("[backends.x]\ncommand = \"x\"\nsampler = {}", 3, &["backends.x.sampler", "backend"]);
    let none = "[backends.x]\ncommand = \"x\"\nsampler = { backend = \"chat\" }";
    check(none, 3, &["no backend named", "add a backend with openrouter = {}"]);
    let itself = "[backends.chat]\nopenrouter = {}\nsampler = { backend = \"chat\" }";
    check(itself, 3, &["asks nobody", "leave it out"]);
}

#[test]
fn a_key_that_does_not_exist_is_told_with_the_one_that_was_meant() {
    check("[listen]\nadress = \"127.0.0.1:1\"", 2, &["listen.adress", "did you mean `address`?"]);
    check("[lisen]\naddress = \"127.0.0.1:1\"", 1, &["there is no table [lisen]", "did you mean `listen`?"]);
    check("[listen]\nport = 80", 2, &["`address` holds the host and the port"]);
    check(&backend("disabled = true"), 3, &["enabled = false"]);
    check("[consle]\nfoo = \"x\"", 1, &["there is no table [consle]"]);
    check("[identify]\naudience = \"x\"", 1, &["nobody could come in"]);
}

#[test]
fn a_value_of_another_type_is_told_with_what_the_key_takes() {
    check("[listen]\npage_size = \"many\"", 2, &["takes a whole number, not a text", "1000"]);
    check("[listen]\nhosts = \"x\"", 2, &["takes a list of texts"]);
    check("[session]\nmax = -1", 2, &["takes a whole number from 0 on"]);
    check("[session]\nidle = 30", 2, &["takes a length of time such as \"30s\"", "\"30m\""]);
    check("[session]\nidle = \"30\"", 2, &["\"30\" is no length of time", "write a number and a unit"]);
    check("[session]\nmode = \"singel\"", 2, &["did you mean `single`?"]);
    check("[session]\nmode = 1", 2, &["takes one of", "not a number"]);
    check("[listen]\naddress = \"localhost:80\"", 2, &["is not an IP address and a port", "127.0.0.1:8080"]);
    check("[listen]\nbody_limit = \"4 MB\"", 2, &["\"4 MB\" is no amount of memory", "4 MiB"]);
    check("listen = 3", 1, &["takes a table, not a number"]);
    check(&backend("args = [\"a\", 3]"), 3, &["backends.x.args.1", "takes a text"]);
}

#[test]
fn the_gateway_is_not_opened_to_the_network_while_it_knows_no_identities() {
    check("[listen]\naddress = \"0.0.0.0:8080\"", 2, &["no identities", "write \"127.0.0.1:8080\""]);
    check("[listen]\nadmin = \"[::]:9\"", 2, &["listen.admin", "127.0.0.1:9"]);
    assert_eq!(complaints("[listen]\naddress = \"[::ffff:127.0.0.1]:1\"\nadmin = \"[::1]:1\"", &[]), []);
}

#[test]
fn operators_and_clients_have_an_address_each() {
    check("[listen]\nadmin = \"127.0.0.1:8080\"", 2, &["also the address for clients"]);
    assert_eq!(complaints("[listen]\naddress = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"", &[]), []);
}

#[test]
fn numbers_and_times_have_bounds() {
    check("[listen]\npage_size = 0", 2, &["1 to 10000"]);
    check("[listen]\npage_size = 10001", 2, &["1 to 10000"]);
    check("[listen]\nbody_limit = \"0 B\"", 2, &["1 GiB"]);
    check("[session]\nidle = \"0s\"", 2, &["no time at all"]);
    check("[session]\nmax = 0", 2, &["no session"]);
    check("[deadline]\ntotal = \"0s\"", 2, &["no time at all"]);
    check("[deadline]\nidle = \"400d\"", 2, &["longer than a year"]);
    check("[deadline]\nheartbeat = \"400d\"", 2, &["longer than a year"]);
    check("[deadline.tools]\n\"a__*\" = { idle = \"0s\" }", 2, &["deadline.tools.\"a__*\".idle"]);
    check(&backend("connect_timeout = \"0ms\""), 3, &["no time at all"]);
    check(&backend("idle = \"0ms\""), 3, &["no time at all"]);
    check(&backend("max_connections = 1"), 3, &["write 2 or more"]);
    check(&backend("share = \"nobody\""), 3, &["none of its values"]);
}

#[test]
fn hosts_origins_and_levels_are_what_they_are_compared_with() {
    check("[listen]\nhosts = [\"a.b\",\n  \"https://c.d/e\"]", 3, &["is not the name of a host", "\"c.d\""]);
    check("[listen]\norigins = [\"https://a.b/\"]", 2, &["write \"https://a.b\""]);
    check("[listen]\norigins = [\"a.b\"]", 2, &["https://app.example.com"]);
    check("[log]\nlevel = \"inof\"", 2, &["did you mean `info`?"]);
    check("[log]\nlevel = \"waystation=loud\"", 2, &["is no filter"]);
}

#[test]
fn a_backend_is_a_program_or_a_server() {
    check("[backends.x]\nera = \"legacy\"", 1, &["neither `command` nor `url`"]);
    check(&backend("url = \"https://a.b\""), 3, &["not both"]);
    check(&backend("headers = { A = \"b\" }"), 3, &["a program gets no headers"]);
    check(&backend("transport = \"sse\""), 3, &["is about servers with a `url`"]);
    check(&server("args = [\"a\"]"), 3, &["`args` is for a program"]);
    check(&server("cwd = \"/\""), 3, &["`cwd` is for a program"]);
    check(&server("[backends.x.env]\nA = \"b\""), 3, &["`env` is for a program"]);
}

#[test]
fn several_servers_that_are_the_same_are_told_by_their_addresses() {
    let urls = |lines: &str| format!("[backends.x]\nurls = {lines}");
    let two = "[[\"https://a.b\", \"https://c.d\"], \"https://e.f\"]\n";
    assert_eq!(complaints(&urls(two), &[]), []);
    assert_eq!(complaints(&urls(&format!("{two}balance = \"least-loaded\"\nhedge = \"50ms\"")), &[]), []);
    check(&urls(&format!("{two}url = \"https://a.b\"")), 2, &["leave out one of them"]);
    check(&urls(&format!("{two}command = \"x\"")), 2, &["leave out one of them"]);
    check(&urls(&format!("{two}args = [\"x\"]")), 3, &["`args` is for a program"]);
    check(&urls(&format!("{two}hedge = \"0s\"")), 3, &["no time at all"]);
    check(&urls(&format!("{two}balance = \"fast\"")), 3, &["balance"]);
    check(&urls(&format!("{two}auth = {{}}")), 3, &["write `headers`, or one `url`"]);
    check(&urls("[\"https://a.b\", \"https://a.b\"]"), 2, &["backends.x.urls.1", "is there twice"]);
    check(&urls("[[], \"https://a.b\"]"), 2, &["backends.x.urls.0", "is empty"]);
    check(&urls("[\"https://a.b\", [\"ftp://a.b\"]]"), 2, &["backends.x.urls.1.0", "not reached over HTTP"]);
    check(&urls("[7]"), 2, &["backends.x.urls"]);
    check(&server("hedge = \"50ms\""), 3, &["chooses among several servers"]);
    check(&server("balance = \"least-loaded\""), 3, &["chooses among several servers"]);
}

#[test]
fn a_program_is_one_name_and_its_arguments_are_apart() {
    check("[backends.x]\ncommand = \"npx -y a\"", 2, &["without a shell", "args = [\"-y\", \"a\"]"]);
    check("[backends.x]\ncommand = \"\"", 2, &["is empty"]);
    assert_eq!(complaints("[backends.x]\ncommand = \"/opt/My Apps/x\"", &[]), []);
}

#[test]
fn an_address_is_one_of_http_and_holds_no_password() {
    check("[backends.x]\nurl = \"example.com/mcp\"", 2, &["is no URL"]);
    check("[backends.x]\nurl = \"ftp://example.com\"", 2, &["not reached over HTTP"]);
    check("[backends.x]\nurl = \"https://me:hush@example.com\"", 2, &["user's name or password"]);
    check("[backends.x]\nurl = \"https://example.com/#x\"", 2, &["fragment"]);
}

#[test]
fn names_and_prefixes_tell_backends_apart() {
    check("[backends.My_Server]\ncommand = \"x\"", 1, &["[backends.my-server]"]);
    check("[backends.a-]\ncommand = \"x\"", 1, &["[backends.a]"]);
    check("[backends.waystation]\ncommand = \"x\"", 1, &["the gateway's own"]);
    check(&format!("[backends.{}]\ncommand = \"x\"", "a".repeat(33)), 1, &["no more than 32"]);
    check(&backend("prefix = \"a b\""), 3, &["A-Z a-z 0-9 _ . -"]);
    check(&backend("[backends.y]\ncommand = \"y\"\nprefix = \"x\""), 5, &["already that of x"]);
    check(&backend("[backends.y]\ncommand = \"y\"\nprefix = \"waystation\""), 5, &["the gateway itself"]);
    let both_bare =
        "[backends.x]\ncommand = \"x\"\nprefix = \"\"\n[backends.y]\ncommand = \"x\"\nprefix = \"\"";
    assert_eq!(complaints(both_bare, &[]), []);
}

#[test]
fn headers_are_headers_and_not_the_gateways_own() {
    check(&server("headers = { \"X Y\" = \"1\" }"), 3, &["is no name of a header"]);
    check(&server("headers = { Mcp-Session-Id = \"1\" }"), 3, &["the gateway writes itself"]);
    check(&server("headers = { X = \"a\\nb\" }"), 3, &["a line end"]);
}

#[test]
fn a_secret_that_cannot_be_had_is_told_before_it_is_needed() {
    let text = server("headers = { Authorization = { env = \"TOKEN\", prefix = \"Bearer \" } }");
    check(&text, 3, &["TOKEN is not set"]);
    assert_eq!(complaints(&text, &[("TOKEN", "x")]), []);
    check(&backend("env = { A = { file = \"/no/such/file\" } }"), 3, &["/no/such/file cannot be read"]);
    assert_eq!(complaints(&backend("env = { A = { env = \"NOPE\" } }\nenabled = false"), &[]), []);
}

#[test]
fn a_reference_says_where_to_look_and_nothing_else() {
    check(&backend("env = { A = 3 }"), 3, &["is neither a text nor", "{ env = \"NAME\" }"]);
    check(&backend("env = { A = { evn = \"B\" } }"), 3, &["there is no `evn`", "did you mean `env`?"]);
    check(&backend("env = { A = { env = \"B\", file = \"c\" } }"), 3, &["both a variable and a file"]);
    check(&backend("env = { A = { prefix = \"B\" } }"), 3, &["does not say where"]);
}

#[test]
fn a_secret_in_the_file_is_refused_and_never_shown() {
    let token = |prefix: &str| format!("{prefix}Q1w2E3r4T5y6U7i8O9p0");
    let secret = |text: String, words: &[&str], hidden: &str| {
        check(&text, 3, words);
        let complaints = Config::parse("routes.toml", &text, &Environment::default()).unwrap_err();
        for shown in [complaints.to_string(), complaints.drawn(false), format!("{complaints:?}")] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    };
    for prefix in ["ghp_", "sk-", "xoxb-", "AKIA", "eyJhbGci", "github_pat_"] {
        let token = token(prefix);
        let words = ["looks like a secret", "{ env = \"KEY\" }"];
        secret(backend(&format!("env = {{ KEY = \"{token}\" }}")), &words, &token);
        secret(
            backend(&format!("args = [\"--key\", \"{token}\"]")),
            &["WAYSTATION_BACKENDS__X__ARGS"],
            &token,
        );
    }
    let words = ["looks like a secret", "{ env = \"X_TOKEN\", prefix = \"Bearer \" }"];
    secret(server("headers = { Authorization = \"Bearer hush\" }"), &words, "hush");
    secret(server("headers = { authorization = \"hush\" }"), &["{ env = \"X_TOKEN\" }"], "hush");
}

#[test]
fn no_secret_is_shown_that_stands_on_a_line_with_something_wrong() {
    let hidden = "hush-hush";
    for text in [
        backend(&format!("env = {{ A = \"{hidden}\", B = 3 }}")),
        server(&format!("headers = {{ Authorization = \"{hidden}\", \"X Y\" = \"1\" }}")),
        backend(&format!("args = [\"--token\", \"{hidden}\", 3]")),
        backend(&format!("password = \"{hidden}\"")),
        format!("[backends.x]\nurl = \"ftp://me:{hidden}@example.com\""),
        format!("[backends.x]\nurl = \"https://me:{hidden}@example.com"),
        format!("[backends.x]\ncommand = \"x\"\nenv = {{ A = \"{hidden}\" "),
        format!("[backends.x]\ncommand = \"x\"\n[backends.x.env]\nA = \"{hidden}"),
        format!("[backends.x]\ncommand = \"x\"\n[backends.x.env]\nA = {hidden}"),
        format!("[backends.x]\ncommand = \"x\"\n[backends.x.env]\nA = '''\n{hidden}"),
    ] {
        let complaints = Config::parse("routes.toml", &text, &Environment::default()).unwrap_err();
        for shown in [complaints.to_string(), complaints.drawn(true), format!("{complaints:?}")] {
            assert!(!shown.contains(hidden), "{text}\n{shown}");
        }
    }
}

#[test]
fn what_is_no_toml_is_told_line_by_line() {
    check("[listen]\naddress = 127.0.0.1:80", 2, &["quotes"]);
    check("[listen]\nhosts = []\nhosts = []", 3, &["a second time"]);
    check("[listen]\naddress = \"x", 2, &["a text without an end"]);
    check("{\"mcpServers\": {}}", 1, &["waystation import"]);
    check("[listen\nhosts = []", 1, &[]);
    let lines: Vec<_> = complaints("[listen]\naddress = a\nadmin = b\npage_size = \"x\"", &[])
        .iter()
        .map(|complaint| complaint.line())
        .collect();
    assert_eq!(lines, [Some(2), Some(3), Some(4)]);
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_in_order() {
    let text =
        "[listen]\npage_size = 0\nadress = 1\n\n[session]\nmode = \"x\"\n\n[backends.x]\ncomand = \"npx\"\n";
    let places: Vec<_> = complaints(text, &[("WAYSTATION_LISTEN__ADDRESS", "nowhere")])
        .iter()
        .map(|complaint| (complaint.at.clone(), complaint.line()))
        .collect();
    let expected = [
        ("listen.page_size", Some(2)),
        ("listen.adress", Some(3)),
        ("session.mode", Some(6)),
        ("backends.x.comand", Some(9)),
        ("listen.address", None),
    ];
    assert_eq!(places, expected.map(|(at, line)| (at.to_owned(), line)));
}

#[test]
fn what_the_environment_sets_wins_and_is_called_by_its_variable() {
    let variables = [
        ("WAYSTATION_LISTEN__PAGE_SIZE", "17"),
        ("WAYSTATION_LISTEN__HOSTS", "[\"a.b\"]"),
        ("WAYSTATION_BACKENDS__MY_SERVER__COMMAND", "x"),
        ("WAYSTATION_BACKENDS__MY_SERVER__ENV__PORT", "8080"),
        ("WAYSTATION_BACKENDS__MY_SERVER__ENABLED", "false"),
    ];
    let environment = variables.into_iter().collect::<Environment>();
    let (config, source) = Config::parse("routes.toml", "[listen]\npage_size = 5", &environment).unwrap();
    assert_eq!((config.listen.page_size, config.listen.hosts), (17, vec!["a.b".to_owned()]));
    let backend = &config.backends["my-server"];
    assert_eq!((backend.command.as_deref(), backend.enabled), (Some("x"), Some(false)));
    assert_eq!(source.place_of("listen.page_size"), Place::Variable("WAYSTATION_LISTEN__PAGE_SIZE".into()));

    let wrong = [
        ("WAYSTATION_LISTEN__PAGE_SIZE", "many"),
        ("WAYSTATION_LISTEN__COLOUR", "red"),
        ("WAYSTATION_LISTEN_ADMIN", "x"),
    ];
    let said: Vec<_> =
        complaints("[listen]\npage_size = 5", &wrong).iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:#?}");
    for variable in
        ["WAYSTATION_LISTEN__PAGE_SIZE: ", "WAYSTATION_LISTEN__COLOUR: ", "WAYSTATION_LISTEN_ADMIN: "]
    {
        assert!(said.iter().any(|line| line.contains(variable)), "{variable} in {said:#?}");
    }
}

#[test]
fn a_secret_may_stand_in_the_environment() {
    let token = "ghp_Q1w2E3r4T5y6U7i8O9p0";
    let variables = [
        ("WAYSTATION_BACKENDS__X__ENV__TOKEN", token),
        ("WAYSTATION_BACKENDS__X__ARGS", "[\"ghp_Q1w2E3r4T5y6U7i8O9p0\"]"),
    ];
    assert_eq!(complaints(&backend(""), &variables), []);
    let variables = [("WAYSTATION_BACKENDS__X__ENV__TOKEN", "{ env = \"OTHER\" }")];
    assert_eq!(complaints(&backend(""), &variables).len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_name() {
    let complaints =
        Config::load(Some("/no/such/routes.toml".as_ref()), &Environment::default()).unwrap_err();
    assert_eq!(complaints.len(), 1);
    assert!(
        complaints.to_string().starts_with("error: /no/such/routes.toml: cannot be read"),
        "{complaints}"
    );
}

#[test]
fn what_another_part_complains_of_gets_its_place_too() {
    let text = backend("cwd = \"/nowhere\"");
    let (_, source) = Config::parse("routes.toml", &text, &Environment::default()).unwrap();
    let mut complaints = Complaints::default();
    let built = complaints.hear::<()>("backends.x.cwd", Err("is no folder; make it".into()));
    assert_eq!(built, None);
    let said = complaints.located(&source).to_string();
    assert_eq!(said, "error: routes.toml:3:7: backends.x.cwd: is no folder; make it\n");
}

#[test]
fn a_terminal_shows_the_line_and_what_would_be_right() {
    let text = "[listen]\npage_size = 0\n";
    let complaints = Config::parse("routes.toml", text, &Environment::default()).unwrap_err();
    let expected = "\
error: listen.page_size: a page has 1 to 10000 entries
 --> routes.toml:2:13
  |
2 | page_size = 0
  |             ^
  |
  = help: write 1000, which is the default

";
    assert_eq!(complaints.drawn(false), expected);
    assert!(!complaints.drawn(true).contains(":::"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_complained_of_and_never_shows_a_secret(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..14),
        variable in "WAYSTATION_(LISTEN|BACKENDS|X)__[A-Z_]{0,8}",
        value in "[a-z0-9\"\\\\\\[{=é]{0,6}",
    ) {
        let text = pieces.concat();
        let environment = Environment::from_iter([(variable, value)]);
        if let Err(complaints) = Config::parse("routes.toml", &text, &environment) {
            let shown = format!("{complaints}{}{complaints:?}", complaints.drawn(true));
            proptest::prop_assert!(!shown.contains("hush"), "{text}\n{shown}");
            proptest::prop_assert!(!complaints.is_empty());
        }
    }
}

/// What files consist of, and what breaks them.
const PIECES: &[&str] = &[
    "[listen]\n",
    "[backends.x]\n",
    "[backends.\"é\"]\n",
    "[backends.x.env]\n",
    "[[backends]]\n",
    "[deadline.tools]\n",
    "address = ",
    "hosts = ",
    "command = ",
    "url = ",
    "args = ",
    "env = ",
    "headers = ",
    "é = ",
    "TOKEN = ",
    "a.b = ",
    "\"x\"",
    "\"127.0.0.1:1\"",
    "3",
    "true",
    "[",
    "]",
    "{",
    "}",
    "{ env = \"A\" }",
    "{ TOKEN = \"hush\", b = 3 }",
    ", ",
    "[\"--token\", \"hush\", 3]",
    "\"https://me:hush@x.y\"",
    "\"npx --token hush\"",
    "\"\"\"",
    "'''",
    "\"",
    "\n",
    "\r\n",
    "# é\n",
    "=",
    "é",
    "\t",
];

#[test]
fn limits_that_make_no_sense_are_refused() {
    check("[limit]\nper_caller = \"fast\"", 2, &["\"fast\" is no limit", "600/min"]);
    check("[limit]\nper_caller = 600", 2, &["takes a limit such as \"600/min\"", "not a number"]);
    check("[limit]\nall = [\"9/s\", \"0/s\"]", 2, &["would refuse every call"]);
    check("[limit]\nper_session = \"9/s\"", 2, &["limit.per_session"]);
    check("[limit]\ntools = { \"a__b\" = \"9/s per session\" }", 2, &["limit.tools", "is no limit"]);
    check(
        "[limit]\ncosts = { \"a__b\" = 70 }\nanonymous = \"none\"",
        1,
        &["counts as 70", "lets 60 come at once"],
    );
    check("[limit]\nwait = \"0s\"", 2, &["limit.wait", "no time at all"]);
    check("[limit]\nusd_per_day = -1.0", 1, &["`usd_per_day` is no sum"]);
    check("[limit]\ngroups = { staff = \"9/s\" }", 2, &["nobody is known here"]);
    let misspelt = format!("{}[limit]\nbackends = {{ xx = \"9/s\" }}", backend(""));
    check(&misspelt, 4, &["limit.backends.xx", "is no backend", "did you mean `x`?"]);
    check("[listen]\ntrusted_proxies = [\"proxy\"]", 2, &["\"proxy\" is no network", "10.0.0.0/8"]);
    check("[listen]\ntrusted_proxies = [\"0.0.0.0/0\"]", 2, &["the whole world"]);
}

#[test]
fn a_rule_or_a_set_that_makes_no_sense_is_told() {
    let who = "[identify]\nanonymous = true\n[[permit]]\nallow = [\"*\"]\n";
    check(
        &format!("{who}when = 'caller.group == 1'"),
        5,
        &["permit.0.when", "caller has no \"group\"", "groups"],
    );
    check(&format!("{who}when = 'caller.subject =='"), 5, &["is no condition"]);
    check(&format!("{who}needs = [\"a b\"]"), 5, &["permit.0.needs", "no scope"]);
    check(&format!("{who}only = \"readonly\""), 5, &["read-only"]);
    check("[[permit]]\nallow = [\"*\"]\nneeds = [\"x\"]", 1, &["nobody is known here"]);
    check("[sets.Reading]\ntools = [\"*\"]", 1, &["small letters"]);
    check("[sets.reading]\ntool = [\"*\"]", 2, &["did you mean `tools`?"]);
    check("[sets.reading]", 1, &["has nothing in it"]);
}
