//! What does a browser see that is to connect an account?
//!
//! A page that says for whom and for what it is, and a button: nothing is begun by opening a link,
//! for a link may be opened by a preview, or come from somebody with other plans. Then the browser
//! goes to the authorization server, and comes back to a page that says what came of it. The gateway
//! does not know who sits before the browser, so the page says whose calls will use the account.

use http::{HeaderMap, HeaderValue, Method as Verb, Response, StatusCode, header};

use super::{
    body::{self, Body},
    refusal::not_allowed,
};
use crate::call::{Consent, Leave, Wish};

/// Below this path the pages are.
pub const PAGES: &str = "/connect/";
const COOKIE: &str = "waystation-connect";
/// Seconds in which a browser may come back.
const AGE: u64 = 600;

/// Answers a browser, by what follows [`PAGES`] in the path.
pub async fn answer(
    consent: &dyn Consent,
    (verb, page, query): (&Verb, &str, Option<&str>),
    headers: &HeaderMap,
) -> Response<Body> {
    match (page, verb) {
        ("client.json", &Verb::GET) => match consent.document() {
            Some(document) => body::json(200, document.into_bytes()),
            None => body::plain(StatusCode::NOT_FOUND, "Only a gateway that is reached over https has one."),
        },
        ("callback", &Verb::GET) => {
            let cookie = cookie(headers, name(consent));
            match consent.end(query.unwrap_or_default(), cookie).await {
                Ok(wish) => connected(&wish),
                Err(why) => failed(&why),
            }
        }
        ("client.json" | "callback", _) => not_allowed("GET"),
        (link, &Verb::GET) => match consent.wish(link) {
            Some(wish) => question(&wish),
            None => failed(
                "This link was used already, or is more than ten minutes old. Make the call again for another.",
            ),
        },
        (link, &Verb::POST) => match consent.begin(link).await {
            Ok(leave) => away(consent, &leave),
            Err(why) => failed(&why),
        },
        _ => not_allowed("GET, POST"),
    }
}

fn question(wish: &Wish) -> Response<Body> {
    let Wish { caller, backend, server } = wish;
    let (caller, backend, server) = (escaped(caller), escaped(backend), escaped(server));
    let text = format!(
        "<h1>Connect an account?</h1>\
         <p>The gateway would use <b>your account</b> at the server <b>{backend}</b> ({server}) for every call that is \
         made by <b>{caller}</b>.</p>\
         <p>Go on only if that is you, and if you have just asked for it yourself. If somebody has sent you this link, \
         close the page: they would get to use your account.</p>\
         <form method=\"post\"><button>Connect</button></form>"
    );
    page(StatusCode::OK, "Connect an account", &text)
}

fn connected(wish: &Wish) -> Response<Body> {
    let text = format!(
        "<h1>Connected</h1><p>Calls of {} may use your account at {}. You can close this page.</p>",
        escaped(&wish.caller),
        escaped(&wish.backend)
    );
    page(StatusCode::OK, "Connected", &text)
}

fn failed(why: &str) -> Response<Body> {
    let text = format!("<h1>Not connected</h1><p>{}</p>", escaped(why));
    page(StatusCode::BAD_REQUEST, "Not connected", &text)
}

/// Sends the browser to the authorization server, with what it has to bring back.
fn away(consent: &dyn Consent, Leave { to, cookie }: &Leave) -> Response<Body> {
    let secure = if consent.is_secure() { "; Secure" } else { "" };
    let name = name(consent);
    // With the prefix a browser takes it from this very host alone, and for all of its paths.
    let cookie = format!("{name}={cookie}; HttpOnly; SameSite=Lax; Path=/; Max-Age={AGE}{secure}");
    let (Ok(to), Ok(cookie)) = (HeaderValue::from_str(to), HeaderValue::from_str(&cookie)) else {
        return failed("The authorization server is at an address that no browser could be sent to.");
    };
    let mut response = page(StatusCode::SEE_OTHER, "Connect an account", "");
    response.headers_mut().insert(header::LOCATION, to);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

fn name(consent: &dyn Consent) -> String {
    if consent.is_secure() { format!("__Host-{COOKIE}") } else { COOKIE.to_owned() }
}

fn cookie(headers: &HeaderMap, name: String) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = all.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// A page without scripts, pictures or frames, which nothing keeps and nobody is told of.
fn page(status: StatusCode, title: &str, text: &str) -> Response<Body> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><body>{text}</body></html>\n"
    );
    let mut response = Response::new(Body::Whole(html.into()));
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // What turns the direction of writing could make a name read like another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_part_of_the_page() {
        assert_eq!(escaped("<b onclick='x'>\u{202e}&\""), "&lt;b onclick=&#39;x&#39;&gt;&amp;&quot;");
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; waystation-connect=x; c=d"));
        assert_eq!(cookie(&headers, COOKIE.into()), Some("x"));
        assert_eq!(cookie(&headers, format!("__Host-{COOKIE}")), None);
    }
}
