//! `cocoon-measure image verify`.

use std::path::PathBuf;

use clap::Args;
use cocoon_measurements::image::directory::Directory;
use cocoon_measurements::image::manifest::{Content, Entry};
use cocoon_measurements::image::verify::{Inspection, verify};
use serde_json::{Value, json};

use super::Verdict;

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Directory with vmlinuz, initrd, cmdline, snp/, tdx/ and manifest.json
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(crate) fn run(&self) -> anyhow::Result<Verdict> {
        let found = verify(&Directory::new(&self.dir))?;
        if self.json {
            println!("{:#}", as_json(&found));
        } else {
            print(&found);
        }
        Ok(if found.differences.is_empty() { Verdict::Good } else { Verdict::Bad })
    }
}

fn as_json(found: &Inspection) -> Value {
    let part = |(path, content): (&String, &Content)| json!({ "path": path, "size": content.size, "sha256": content.sha256 });
    json!({
        "ok": found.differences.is_empty(),
        "profile": found.manifest.profile,
        "simulated": found.manifest.simulated,
        "size": found.size(),
        "parts": found.parts.iter().map(part).collect::<Vec<_>>(),
        "initrd": found.initrd,
        "inputs": found.manifest.inputs,
        "tools_not_locked": found.tools_not_locked().collect::<Vec<_>>(),
        "not_locked": found.manifest.not_locked,
        "differences": found.differences,
    })
}

fn print(found: &Inspection) {
    println!("{:>12}  {:<64}  part", "bytes", "sha256");
    for (path, content) in &found.parts {
        println!("{:>12}  {}  {path}", content.size, content.sha256);
    }
    println!("{:>12}  in {} files", found.size(), found.parts.len());
    println!("\n{:>12}  {:<64}  {:<7}  initrd", "bytes", "sha256", "mode");
    found.initrd.iter().for_each(print_entry);
    let (files, bytes) = found
        .initrd
        .iter()
        .filter_map(|entry| entry.content)
        .fold((0u64, 0u64), |(files, bytes), content| {
            (files.saturating_add(1), bytes.saturating_add(content.size))
        });
    println!("{bytes:>12}  in {files} files, {} entries\n", found.initrd.len());
    for input in &found.manifest.inputs {
        println!("from {} {} {}", input.name, input.version, input.sha256);
    }
    for tool in found.tools_not_locked() {
        println!("warning: {tool} is not locked: it made this image, but not as the lock file says");
    }
    for what in &found.manifest.not_locked {
        println!("warning: not locked: {what}");
    }
    if found.manifest.simulated {
        println!("WARNING: the simulated platform is in this image: for development only, never release it");
    }
    for difference in &found.differences {
        let what = difference.what;
        println!(
            "DIFFERS {}: {what} is {}, the manifest wants {}",
            difference.file, difference.got, difference.want
        );
    }
    if found.differences.is_empty() {
        println!("the image is what its manifest says");
    } else {
        println!("the image is NOT what its manifest says: build it again, or take it from its source again");
    }
}

fn print_entry(entry: &Entry) {
    match &entry.content {
        Some(content) => {
            println!("{:>12}  {}  {}  {}", content.size, content.sha256, entry.mode, entry.path);
        }
        None => println!("{:>12}  {:<64}  {}  {}", "", "", entry.mode, entry.path),
    }
}
