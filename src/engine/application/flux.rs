//! An application that declares Flux itself: whoever applies it brings Flux's controllers back to life, and the two
//! would undo each other's work. It is `Stalled` and says what to do; nothing of it is applied or deleted.

use std::collections::BTreeSet;

use crate::plan::{self, Desired};

use super::report::listed;
use super::{Application, Failure, Prepared, Work};

/// The reason of the condition.
const RENDERS_FLUX: &str = "RendersFlux";

impl Application {
    /// Why nothing of this may be applied, if Flux's controllers are among it.
    pub fn renders_flux(&self, work: &Work, prepared: &Prepared) -> Option<Failure> {
        let controllers = plan::controllers(&prepared.desired);
        if controllers.is_empty() {
            return None;
        }
        let path = work.object.spec.path.as_deref().unwrap_or("./");
        Some(Failure::new(RENDERS_FLUX, told(&controllers, path, prepared)).stalled())
    }
}

fn told(controllers: &[&Desired], path: &str, prepared: &Prepared) -> String {
    let ids: Vec<_> = controllers.iter().map(|desired| &desired.object.id).collect();
    let files: BTreeSet<&str> = controllers.iter().map(|desired| &*desired.object.origin.path).collect();
    let named: Vec<_> = files.iter().map(|file| format!("`{file}`")).collect();
    let steps: Vec<_> = files.iter().map(|file| step(file, path, prepared)).collect();
    format!(
        "declares Flux's own controllers ({} in {}): nothing of this Kustomization is applied or deleted, since Flux and \
         Afresh would undo each other's work\nhint: in Git, {}; with that commit the rest of `{path}` is applied again, and \
         Flux's own objects stay in the cluster as they are. Until then the Kustomizations that it declares go on as they \
         are in the cluster. docs/migrate-from-flux.md has the steps, and the way back",
        listed(&ids),
        named.join(", "),
        steps.join("; "),
    )
}

/// What takes one file out of what is rendered.
fn step(file: &str, path: &str, prepared: &Prepared) -> String {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    match prepared.read_set().kustomization_in(folder) {
        Some(kustomization) => {
            format!("take `{name}`, and the patches for it, out of `{kustomization}`")
        }
        None => format!("move `{file}` out of `{path}`"),
    }
}
