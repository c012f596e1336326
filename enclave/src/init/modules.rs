//! Kernel modules: those that the image lists, in its order, and then none any more.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::events::BootStep;

/// MODULE_INIT_COMPRESSED_FILE of include/uapi/linux/module.h: the kernel unpacks the file, and then checks its signature.
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Loads everything in `modules/order`. A driver whose device this machine does not have says so and is left out.
pub(super) fn load_all(root: &Path) -> Result<(), BootStep> {
    let folder = root.join("modules");
    let order = std::fs::read_to_string(folder.join("order")).map_err(|_io| BootStep::Modules)?;
    for name in order.lines() {
        let file = File::open(folder.join(format!("{name}.ko.xz"))).map_err(|_io| BootStep::Modules)?;
        match finit_module(file, c"", COMPRESSED) {
            Ok(()) | Err(Errno::ENODEV) => {}
            Err(_refused) => return Err(BootStep::Modules),
        }
    }
    Ok(())
}
