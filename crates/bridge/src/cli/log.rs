//! The log. Zenoh gives the reason for a refused connection at its level `debug` only, or again at each attempt: here it is a warning, once.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The filter unless `RUST_LOG` has another. Zenoh warns at each start of a peer that gossip is off, which is intended.
const FILTER: &str = "warn,sealane_bridge=info,zenoh::net::routing::hat::peer=error";

/// Where Zenoh tells what became of an attempt: to connect, as `debug`; of others to connect here, as `warn`.
const CONNECTING: &str = "zenoh::net::runtime::orchestrator";
const LISTENING: &str = "zenoh_link_tls::unicast";

/// Reasons that are remembered.
const MOST: usize = 64;

/// The system's words where nobody listens.
const NOBODY: &str = "Connection refused";

/// Words of TLS libraries and of the system, and their meaning for a user.
const MEANINGS: [(&str, &str); 12] = [
    ("UnknownIssuer", "its certificate is of an authority that is not in `root_ca_certificate`"),
    (
        "not valid for name",
        "its certificate is for another name than the endpoint's: connect to a name that it is for",
    ),
    ("invalid peer certificate: certificate expired", "its certificate has expired"),
    ("invalid peer certificate: Expired", "its certificate has expired"),
    (
        "UnknownCA",
        "it does not know the authority of this bridge's certificate: its `root_ca_certificate` lacks that one",
    ),
    ("CertificateExpired", "it says that this bridge's certificate has expired"),
    ("BadCertificate", "it does not accept this bridge's certificate, perhaps as that is for another name"),
    (
        "CertificateRequired",
        "it wants a certificate: `connect_certificate`, `connect_private_key` and `enable_mtls`",
    ),
    (
        "peer sent no certificates",
        "it has no certificate, which `enable_mtls` wants: `connect_certificate`, `connect_private_key`",
    ),
    ("InvalidContentType", "it does not speak TLS: `tls/` expected in the endpoints of both sides"),
    (
        "eof",
        "it closed the connection at once: `tls/` expected in the endpoints of both sides, or of neither",
    ),
    (NOBODY, "nobody listens there yet"),
];

/// Starts the log.
pub(crate) fn start() {
    let shown = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(FILTER)).build();
    let most = shown.filter().max(LevelFilter::Debug);
    if log::set_boxed_logger(Box::new(Logger { shown, told: Mutex::default() })).is_ok() {
        log::set_max_level(most);
    }
}

struct Logger {
    shown: env_logger::Logger,
    told: Mutex<Told>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_of_attempt(metadata) || self.shown.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !is_of_attempt(record.metadata()) {
            return self.shown.log(record);
        }
        let text = record.args().to_string();
        let attempt = Attempt::of(record.target(), &text);
        // Zenoh repeats these warnings, with a wrong hint: ours take their place.
        if record.level() == Level::Debug || attempt.is_none() {
            self.shown.log(record);
        }
        let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((level, line)) = attempt.and_then(|attempt| told().take(&attempt)) {
            let metadata = Metadata::builder().level(level).target("sealane_bridge").build();
            self.shown.log(&Record::builder().metadata(metadata).args(format_args!("{line}")).build());
        }
    }

    fn flush(&self) {
        self.shown.flush();
    }
}

fn is_of_attempt(metadata: &Metadata<'_>) -> bool {
    match metadata.target() {
        CONNECTING => metadata.level() == Level::Debug,
        LISTENING => metadata.level() >= Level::Warn,
        _ => false,
    }
}

/// The outcome of an attempt to connect: from here to an endpoint, or, without one, from elsewhere to here.
#[derive(Debug, PartialEq)]
enum Attempt<'t> {
    Failed(Option<&'t str>, &'t str),
    Succeeded(Option<&'t str>),
}

impl<'t> Attempt<'t> {
    fn of(target: &str, text: &'t str) -> Option<Self> {
        if target == LISTENING {
            let refused = text.strip_suffix(" Hint: increase the system open file limit.");
            return match refused.filter(|why| !why.contains("os error")) {
                Some(why) => Some(Self::Failed(None, why)),
                None => text.starts_with("Accepted TLS connection").then_some(Self::Succeeded(None)),
            };
        }
        if let Some(endpoint) = text.strip_prefix("Successfully connected to configured peer ") {
            return Some(Self::Succeeded(Some(endpoint)));
        }
        let (endpoint, rest) =
            text.strip_prefix("Unable to connect to configured peer ")?.split_once("! ")?;
        let why = rest.rsplit_once(" Retry in ").map_or(rest, |(why, _)| why);
        Some(Self::Failed(Some(endpoint), why))
    }
}

/// Endpoints and reasons that were told since the last success.
#[derive(Debug, Default)]
struct Told(BTreeSet<(Option<String>, String)>);

impl Told {
    /// The line that is due now, if the outcome is news.
    fn take(&mut self, attempt: &Attempt<'_>) -> Option<(Level, String)> {
        let (endpoint, why) = match attempt {
            Attempt::Succeeded(endpoint) => {
                self.0.retain(|(told, _)| told.as_deref() != *endpoint);
                return None;
            }
            Attempt::Failed(endpoint, why) => (*endpoint, sealane_bridge::without_places(why)),
        };
        let why = why.trim_end_matches('.');
        let meaning = MEANINGS.iter().find(|(words, _)| why.contains(words));
        // Times and ports, which are others each time, do not make another reason.
        let reason = meaning
            .map_or_else(|| why.replace(|c: char| c.is_ascii_digit(), ""), |(words, _)| (*words).to_owned());
        // UNTRUSTED: what others send when they connect may be part of a reason.
        if self.0.len() >= MOST || !self.0.insert((endpoint.map(str::to_owned), reason)) {
            return None;
        }
        let what = endpoint
            .map_or_else(|| "refused who connected".to_owned(), |at| format!("cannot connect to {at}"));
        // The program that is started first waits for the others.
        let is_usual = meaning.is_some_and(|(words, _)| *words == NOBODY);
        let meaning = meaning.map(|(_, meaning)| format!("{meaning} ")).unwrap_or_default();
        let again = if endpoint.is_some() { "; it is tried again" } else { "" };
        Some((if is_usual { Level::Info } else { Level::Warn }, format!("{what}: {meaning}({why}){again}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Option<&str> = Some("tls/a:1");

    fn failed(endpoint: Option<&'static str>, why: &'static str) -> Attempt<'static> {
        Attempt::Failed(endpoint, why)
    }

    #[test]
    fn attempts_are_recognised() {
        let text = "Unable to connect to configured peer tls/a:1! No! Why at /r/unicast.rs:1.. Retry in 1s.";
        assert_eq!(Attempt::of(CONNECTING, text), Some(failed(AT, "No! Why at /r/unicast.rs:1..")));
        let text = "Successfully connected to configured peer tls/a:1";
        assert_eq!(Attempt::of(CONNECTING, text), Some(Attempt::Succeeded(AT)));
        let refused = |why| Attempt::of(LISTENING, why);
        let text = "why. Hint: increase the system open file limit.";
        assert_eq!(refused(text), Some(failed(None, "why.")));
        assert_eq!(
            refused("Too many open files (os error 24). Hint: increase the system open file limit."),
            None
        );
        assert_eq!(Attempt::of(CONNECTING, "Starting with no listener endpoints!"), None);
    }

    #[test]
    fn each_reason_is_told_once_until_it_is_connected() {
        let mut told = Told::default();
        let line = "cannot connect to tls/a:1: its certificate has expired (invalid peer certificate: Expired); it is tried again";
        let expired = failed(AT, "invalid peer certificate: Expired at /r/unicast.rs:1.");
        assert_eq!(told.take(&expired), Some((Level::Warn, line.to_owned())));
        assert_eq!(told.take(&expired), None);
        assert!(told.take(&failed(None, "invalid peer certificate: Expired")).is_some(), "another place");
        assert_eq!(told.take(&failed(AT, "Connection refused (os error 111)")).unwrap().0, Level::Info);
        assert!(told.take(&failed(AT, "no route, port 12")).is_some());
        assert!(told.take(&failed(AT, "no route, port 34")).is_none());
        assert_eq!(told.take(&Attempt::Succeeded(AT)), None);
        assert!(told.take(&expired).is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut told = Told::default();
        let reasons: Vec<String> = (0..1000).map(|len| "x".repeat(len)).collect();
        let told = reasons.iter().filter(|why| told.take(&Attempt::Failed(None, why)).is_some()).count();
        assert_eq!(told, MOST);
    }
}
