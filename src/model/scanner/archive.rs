//! Images that a scanner gets as an archive.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What of an image a scanner can read in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ArchiveNeeds {
    /// The forms of layers that it reads; `tar` and `gzip` where this is absent. An image with a layer of another form is not
    /// given to it, and not evaluated.
    #[serde(default = "usual")]
    pub layers: Vec<LayerForm>,
}

fn usual() -> Vec<LayerForm> {
    vec![LayerForm::Tar, LayerForm::Gzip]
}

/// How a layer is stored (OCI image-spec, layer.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LayerForm {
    /// As it is.
    Tar,
    /// Compressed by gzip.
    Gzip,
    /// Compressed by zstd.
    Zstd,
}

impl LayerForm {
    /// The form of a layer of this media type, OCI's or Docker's; `None` where it is none of these, or of layers that registries
    /// need not have (foreign, non-distributable).
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Some(Self::Tar)
            }
            "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
                Some(Self::Gzip)
            }
            "application/vnd.oci.image.layer.v1.tar+zstd" | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
                Some(Self::Zstd)
            }
            _ => None,
        }
    }
}

impl fmt::Display for LayerForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tar => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}
