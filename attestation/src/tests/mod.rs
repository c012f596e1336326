//! Every parser on inputs that are wrong in one place, systematically: each value of a message, each node of a DER tree, each length of
//! a binary structure. What a fuzzer finds by luck is tried here in order.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow here is a failed test")]

mod binary;
mod messages;
mod trees;
