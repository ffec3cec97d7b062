//! A set of controls, in the form that the ledger and the reports keep.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::control::Control;
use crate::base::digest::Digest;

/// A named, versioned set of controls: exactly what is expected of each target that it is applied to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Lower-case letters, digits and hyphens; unique in a bundle.
    pub name: String,
    /// The profile's own version.
    pub version: String,
    /// One line.
    pub title: String,
    /// What it is for.
    #[serde(default)]
    pub summary: String,
    /// In the profile's own order, each id once.
    pub controls: Vec<Control>,
}

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It asks for nothing, so that it could only be green.
    #[error("use profile `{0}`: it has no control")]
    Empty(String),
    /// Two controls with one name would be counted as one.
    #[error("use profile `{profile}`: control `{control}` is in it twice")]
    Duplicate {
        /// The profile.
        profile: String,
        /// The control.
        control: String,
    },
}

impl Profile {
    /// The same profile after a check that it asks for something, and for nothing twice.
    ///
    /// # Errors
    /// For a profile without controls or with a control id that is there twice.
    pub fn checked(self) -> Result<Self, ProfileError> {
        if self.controls.is_empty() {
            return Err(ProfileError::Empty(self.name));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.controls.iter().find(|c| !seen.insert(c.id.as_str())) {
            return Err(ProfileError::Duplicate { control: twice.id.clone(), profile: self.name.clone() });
        }
        Ok(self)
    }

    /// The JSON form that [`Profile::digest`] covers.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a profile is strings, numbers and lists, which always have a JSON form")
    }

    /// The digest of the JSON form: names this exact set of controls.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_json())
    }

    /// The control of this id.
    pub fn control(&self, id: &str) -> Option<&Control> {
        self.controls.iter().find(|c| c.id == id)
    }

    /// How a result names this profile.
    pub fn reference(&self) -> ProfileRef {
        ProfileRef { name: self.name.clone(), version: self.version.clone(), digest: self.digest() }
    }
}

/// Names an exact profile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileRef {
    /// [`Profile::name`]
    pub name: String,
    /// [`Profile::version`]
    pub version: String,
    /// [`Profile::digest`]
    pub digest: Digest,
}
