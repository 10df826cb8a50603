//! Files with topics and options, as JSON5.

use std::{fmt, fs, marker::PhantomData, path::Path};

use anyhow::{Context, Result, anyhow};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::{
    options::{ExportOptions, ImportOptions, TopicOptions},
    units::Time,
};

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) listen: Vec<String>,
    pub(crate) connect: Vec<String>,
    pub(crate) router: bool,
    pub(crate) lease: Option<Time>,
    pub(crate) export: Topics<ExportOptions>,
    pub(crate) import: Topics<ImportOptions>,
    /// Zenoh's own configuration.
    pub(crate) zenoh: Option<Value>,
}

impl Config {
    /// Reads a file. Errors name it, and the line and column if they are known.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| name.to_string())?;
        json5::from_str(&text).map_err(|json5::Error::Message { msg, location }| match location {
            Some(at) => anyhow!("{name}:{}:{}: {}", at.line, at.column, in_a_line(&msg)),
            None => anyhow!("{name}: {}", in_a_line(&msg)),
        })
    }
}

/// A syntax error comes with a picture of the line; its last line says what was expected.
fn in_a_line(message: &str) -> &str {
    let last = message.lines().last().unwrap_or_default().trim();
    last.strip_prefix("= ").unwrap_or(message)
}

/// Topics with their options, in the file's order. Unlike a map it has each that the file has, so that none is lost if it is there twice.
#[derive(Debug)]
pub(crate) struct Topics<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Topics<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: TopicOptions + Deserialize<'de>> Deserialize<'de> for Topics<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All<T>(PhantomData<T>);

        impl<'de, T: TopicOptions + Deserialize<'de>> Visitor<'de> for All<T> {
            type Value = Topics<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("topics with their paths: { topic: \"path\" }")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Topics<T>, M::Error> {
                let mut topics = Vec::new();
                while let Some((name, PathOrOptions(options))) = map.next_entry()? {
                    topics.push((name, options));
                }
                Ok(Topics(topics))
            }
        }

        from.deserialize_map(All(PhantomData))
    }
}

/// A topic's path alone, or options with a path.
struct PathOrOptions<T>(T);

impl<'de, T: TopicOptions + Deserialize<'de>> Deserialize<'de> for PathOrOptions<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: TopicOptions + Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = PathOrOptions<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or { path: \"path\", option: value }")
            }

            fn visit_str<E>(self, path: &str) -> Result<Self::Value, E> {
                Ok(PathOrOptions(T::of(path.into())))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(PathOrOptions)
            }
        }

        from.deserialize_any(Either(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sealane::Slow;
    use sealane_bridge::WhenBehind;

    use super::*;

    fn read(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("bridge.json5");
        fs::write(&path, text)?;
        Config::read(&path)
    }

    #[test]
    fn a_file_has_all_options() {
        let config = read(
            "{ listen: ['tcp/0.0.0.0:7700'], router: true, lease: '20s', // text
               export: { b: '/b', a: { path: '@a', slow: 'overrun', when_behind: 'wait=1s', memory: 1024, plain: true } },
               import: { c: { path: '/c', silence: 1.5, max_subscribers: 2, no_notices: true, ring: '8MiB' } },
               zenoh: { mode: 'router' } }",
        )
        .unwrap();
        let names: Vec<_> = config.export.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        let a = config.export.0[1].1.settings();
        assert_eq!((a.slow, a.when_behind), (Slow::Overrun, WhenBehind::Wait(Duration::from_secs(1))));
        assert_eq!((a.memory, a.plain), (1024, true));
        let c = config.import.0[0].1.settings();
        assert_eq!((c.silence, c.max_subscribers), (Duration::from_millis(1500), 2));
        assert_eq!((c.ring, c.notices), (8 << 20, false));
        assert_eq!(config.zenoh.unwrap()["mode"], "router");
        assert_eq!(config.lease, Some(Time(Duration::from_secs(20))));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, expected) in [
            ("{\n lisen: [] }", "bridge.json5:2:2: unknown field `lisen`, expected one of `listen`"),
            (
                "{ export: { a: { path: '/a',\n ring: 1 } } }",
                "bridge.json5:2:2: unknown field `ring`, expected one of",
            ),
            ("{ export: { a: { path: '/a',\n  memory: 'much' } } }", ":2:11: a size expected"),
            ("{ export: { a: 3 } }", "expected a path, or { path"),
            ("{ export: ['a'] }", "expected topics with their paths"),
            ("{ router: true, router: true }", "duplicate field `router`"),
            ("{ listen: [", "bridge.json5:1:12: expected"),
            ("", "bridge.json5:1:1: expected"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
        assert!(
            format!("{:#}", Config::read(Path::new("/nowhere")).unwrap_err())
                .starts_with("/nowhere: No such file")
        );
    }
}
