//! Which guard is made weak on purpose?
//!
//! A test that cannot fail is no test. So each row of a battery is seen to fail once, on a build
//! with the feature `weaken` and a weakness named by `WAYSTATION_WEAKEN`. Without the feature,
//! which release builds refuse, every question here is answered with a constant no, and nothing of
//! it is left in the program.

#[cfg(all(feature = "weaken", not(debug_assertions)))]
compile_error!("the feature `weaken` switches guards off for tests; it is not for releases");

/// Is the gateway to have this weakness, such as `identify-audience`?
#[cfg(feature = "weaken")]
pub fn is(weakness: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("WAYSTATION_WEAKEN").unwrap_or_default());
    chosen.split(',').any(|one| one == weakness)
}

#[cfg(not(feature = "weaken"))]
pub const fn is(_: &str) -> bool {
    false
}

/// Logs what must not be seen by whoever reads the log, if that is the weakness.
pub fn show(what: impl FnOnce() -> String) {
    if is("traffic-shown") {
        tracing::error!("{}", what());
    }
}
