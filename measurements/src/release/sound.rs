//! Whether an image is one to release.

use std::path::Path;

use super::ReleaseError;
use crate::image::directory::{Directory, MANIFEST};
use crate::image::verify::verify;
use crate::log::LogError;

/// Checks that the image in `dir` is as its manifest says, has no simulated platform, and was made with the locked tools.
///
/// # Errors
/// `Refused` when it is not; when a file cannot be read.
pub fn check(dir: &Path) -> Result<(), ReleaseError> {
    let path = dir.join(MANIFEST);
    let refused = |why: String| Err(ReleaseError::Refused(format!("{}: {why}", path.display())));
    if !path.try_exists().map_err(|error| LogError::Io { what: "read", path: path.clone(), error })? {
        return refused("there is none: only what `cocoon-measure image build` wrote is released".to_owned());
    }
    let found = verify(&Directory::new(dir))?;
    if let Some(first) = found.differences.first() {
        let (count, file, what) = (found.differences.len(), &first.file, first.what);
        return refused(format!(
            "the image differs from it in {count} places, first in {file}: {what}; `cocoon-measure image verify` lists all"
        ));
    }
    if found.manifest.simulated {
        return refused("the simulated platform is in this image: build one without --simulated".to_owned());
    }
    let tools: Vec<_> = found.tools_not_locked().collect();
    if !tools.is_empty() {
        let tools = tools.join(", ");
        return refused(format!(
            "not made with the locked tools ({tools}): build one without --any-toolchain"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::{Manifest, Tool};
    use crate::image::verify::tests::{image, write_manifest};

    /// Why an image is refused whose manifest was changed.
    fn refused(change: impl Fn(&mut Manifest)) -> String {
        let dir = image();
        let mut manifest = Directory::new(dir.path()).manifest().unwrap();
        change(&mut manifest);
        write_manifest(dir.path(), &manifest);
        why(dir.path())
    }

    fn why(dir: &Path) -> String {
        let error = check(dir).unwrap_err();
        assert!(error.is_rejection(), "{error}");
        error.to_string()
    }

    #[test]
    fn only_images_that_are_not_for_development_are_released() {
        check(image().path()).unwrap();
        assert!(refused(|manifest| manifest.simulated = true).contains("simulated platform"));
        let tool = |locked| Tool {
            name: "rustc".to_owned(),
            package: "p 1".to_owned(),
            sha256: cocoon_attestation::Digest::of(b""),
            locked,
        };
        let said = refused(|manifest| manifest.toolchain = vec![tool(true), tool(false)]);
        assert!(said.contains("locked tools (rustc)"), "{said}");
        let said = refused(|manifest| manifest.initrd.clear());
        assert!(said.contains("differs from it in 3 places, first in initrd:dev"), "{said}");
        let dir = image();
        std::fs::write(dir.path().join(MANIFEST), b"{}").unwrap();
        assert!(why(dir.path()).contains("no manifest of an image"));
        std::fs::remove_file(dir.path().join(MANIFEST)).unwrap();
        assert!(why(dir.path()).contains("there is none"));
    }
}
