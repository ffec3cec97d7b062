//! `gapscan bundle mapping`

use std::path::PathBuf;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::json;

use super::read::ReadArgs;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::progress::Progress;
use crate::cli::table::{self, Format, Table};
use crate::registry::Prefix;
use crate::stage::load::mapping::Mapping;
use crate::trust::remembered::Remembered;

/// Show where a bundle's items are found in a registry, or what other programs must be told about it
#[derive(Debug, clap::Args)]
pub(super) struct MappingArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// The registry that the bundle is loaded into
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    registry: Prefix,
    /// Print a file for another program instead of the list
    #[arg(long, value_name = "PROGRAM", conflicts_with = "output")]
    print: Option<Printed>,
    /// Where the registry's CA is on the nodes, for containerd [default: ca.crt beside hosts.toml]
    #[arg(long, value_name = "PATH")]
    node_ca: Option<PathBuf>,
    /// How to print the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Printed {
    // Documented in docs/reference-mapping.md and not here, as the formats of lists are not.
    ContainersRegistries,
    ContainerdHosts,
    ImagePolicy,
}

impl MappingArgs {
    pub(super) async fn run(self, now: Timestamp) -> Outcome {
        // Nothing is printed before the last byte was verified.
        let verified = self.read.verify(&Remembered::nothing(), &Progress::quiet(), now).await?;
        let mapping = Mapping::new(&self.registry)?;
        let items = mapping.items(verified.catalog())?;
        let bundle = verified.bundle();
        let text = match (self.print, self.output) {
            (Some(Printed::ContainersRegistries), _) => mapping.containers_registries(bundle, &items),
            (Some(Printed::ContainerdHosts), _) => {
                let beside = || format!("/etc/containerd/certs.d/{}/ca.crt", self.registry.registry);
                let ca = self.node_ca.map_or_else(beside, |path| path.display().to_string());
                mapping.containerd_hosts(bundle, &items, &ca)
            }
            (Some(Printed::ImagePolicy), _) => mapping.image_policy(bundle, &items),
            (None, Format::Json) => {
                table::emit_json(&json!({ "bundle": bundle, "registry": self.registry, "items": items }))?;
                return Ok(ExitClass::Success);
            }
            (None, Format::Table) => {
                let mut table = Table::new(&["UPSTREAM", "IN THE REGISTRY"]);
                for item in items {
                    let upstream = item.upstream.unwrap_or_else(|| format!("({})", item.item));
                    table.row([upstream, format!("{}@{}", item.name, item.digest)]);
                }
                table.render(0)
            }
        };
        table::emit(&text)?;
        Ok(ExitClass::Success)
    }
}
