//! What `cocoon-measure` can do, one file per group of commands.

pub(crate) mod image;
