//! Values that replace those of a `config.json`, and warnings that an override answers.

use crate::config::{Config, RopeScaling};
use crate::error::Result;

/// Values that replace those of a `config.json`, for checkpoints that lost them in conversion.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Overrides {
    pub(crate) rope_theta: Option<f64>,
    pub(crate) rope_scaling: Option<RopeScaling>,
}

impl Overrides {
    /// Replaces the values, and removes the warnings that this answers.
    ///
    /// # Errors
    /// As [`Config::override_rope_theta`] and [`Config::override_rope_scaling`].
    pub(crate) fn apply(self, config: &mut Config, warnings: &mut Warnings) -> Result<()> {
        if let Some(theta) = self.rope_theta {
            config.override_rope_theta(theta)?;
            warnings.remove(Answer::RopeTheta);
        }
        if let Some(scaling) = self.rope_scaling {
            config.override_rope_scaling(scaling)?;
            warnings.remove(Answer::RopeScaling);
        }
        Ok(())
    }
}

/// The override that answers a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    RopeTheta,
    RopeScaling,
}

/// Warnings about a configuration: values that are accepted but are likely mistakes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings {
    texts: Vec<String>,
    /// What answers each text, if an override does.
    answers: Vec<Option<Answer>>,
}

impl Warnings {
    pub(super) fn extend(&mut self, texts: impl IntoIterator<Item = String>, answer: Option<Answer>) {
        self.texts.extend(texts);
        self.answers.resize(self.texts.len(), answer);
    }

    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    pub(crate) fn into_texts(self) -> Vec<String> {
        self.texts
    }

    fn remove(&mut self, answer: Answer) {
        let mut answers = self.answers.iter();
        self.texts.retain(|_| answers.next() != Some(&Some(answer)));
        self.answers.retain(|given| *given != Some(answer));
    }
}
