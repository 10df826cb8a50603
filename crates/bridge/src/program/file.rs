//! The configuration file.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context;
use serde::Deserialize;

use super::options::{Time, TopicOptions};

/// What a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) listen: Vec<String>,
    pub(crate) connect: Vec<String>,
    pub(crate) lease: Option<Time>,
    pub(crate) router: bool,
    pub(crate) export: BTreeMap<String, Topic>,
    pub(crate) import: BTreeMap<String, Topic>,
    /// Zenoh's own options.
    pub(crate) zenoh: Option<serde_json::Value>,
}

/// A path, or a path with options.
#[derive(Debug, Deserialize)]
#[serde(from = "TopicForm")]
pub(crate) struct Topic {
    pub(crate) path: PathBuf,
    pub(crate) options: TopicOptions,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a path, or an object with `path` and options of a topic that are known (docs/bridge.md)"
)]
enum TopicForm {
    Path(PathBuf),
    Options(WithPath),
}

/// Fields beside `path` are checked by [`TopicOptions`], which knows them.
#[derive(Debug)]
struct WithPath {
    path: PathBuf,
    options: TopicOptions,
}

impl<'de> Deserialize<'de> for WithPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut fields = serde_json::Map::<String, serde_json::Value>::deserialize(deserializer)?;
        let path = fields.remove("path").ok_or_else(|| D::Error::missing_field("path"))?;
        let path = serde_json::from_value(path).map_err(D::Error::custom)?;
        let options = serde_json::from_value(fields.into()).map_err(D::Error::custom)?;
        Ok(Self { path, options })
    }
}

impl From<TopicForm> for Topic {
    fn from(form: TopicForm) -> Self {
        match form {
            TopicForm::Path(path) => Self { path, options: TopicOptions::default() },
            TopicForm::Options(WithPath { path, options }) => Self { path, options },
        }
    }
}

impl File {
    pub(crate) fn read(path: &std::path::Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(json5::from_str(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_topics_and_zenohs_options() {
        let file = File::parse(
            "{ listen: ['tcp/0.0.0.0:7700'], lease: '1m', export: { a: '/run/a', b: { path: '/run/b', plain: true } },
               zenoh: { mode: 'router' } }",
        )
        .unwrap();
        assert_eq!(file.listen, ["tcp/0.0.0.0:7700"]);
        assert_eq!(file.export["a"].path, PathBuf::from("/run/a"));
        assert!(file.export["b"].options.settings().plain);
        assert_eq!(file.zenoh.unwrap()["mode"], "router");
    }

    #[test]
    fn what_a_file_may_not_say_is_named() {
        for (text, named) in [("{ exports: {} }", "exports"), ("{ export: { a: 7 } }", "a path"), ("{", "1:")]
        {
            let why = format!("{:#}", File::parse(text).unwrap_err());
            assert!(why.contains(named), "{text}: {why}");
        }
    }
}
