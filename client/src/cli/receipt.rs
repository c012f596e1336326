//! `cocoon receipt`

use std::path::{Path, PathBuf};

use anyhow::Context;
use cocoon_attestation::Digest;
use cocoon_attestation::wire::{AttestResponse, EpochStatement};
use cocoon_client::{Error, Factor, Receipt, ReceiptBundle, ReceiptError, Status};
use serde_json::{Value, json};

use super::output;

/// A receipt is 2 KiB, an AttestResponse 256 KiB, an answer some megabytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

#[derive(Debug, clap::Subcommand)]
pub(super) enum ReceiptCommand {
    /// Verify that an enclave signed a receipt, and for what
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Receipt, as `cocoon proxy --receipts` and `cocoon chat --receipt` keep it
    #[arg(value_name = "FILE")]
    receipt: PathBuf,

    /// AttestResponse of the enclave that is meant (`cocoon verify --save`; `cocoon inspect bundle` appraises it)
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,

    /// Body of the request, as it was sent, padding included
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,

    /// Body of the answer, as it came, without padding
    #[arg(long, value_name = "FILE")]
    response: Option<PathBuf>,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: ReceiptCommand) -> anyhow::Result<()> {
    let ReceiptCommand::Verify(args) = command;
    let bytes = read(&args.receipt)?;
    let bundle = ReceiptBundle::decode(&bytes).map_err(|error| Error::from(ReceiptError::from(error)))?;
    let receipt = bundle.signed.verify(&bundle.statement).map_err(Error::from)?;
    let factors = [
        Factor::pass("receipt.signature", hex::encode(bundle.statement.receipt_key)),
        session(args.session.as_deref(), &bundle.statement)?,
        body("receipt.request", args.request.as_deref(), receipt.request)?,
        body("receipt.response", args.response.as_deref(), receipt.response)?,
    ];
    show(&receipt, &factors, args.json)?;
    match factors.iter().find(|factor| factor.status == Status::Fail).map(|factor| factor.name) {
        None => Ok(()),
        Some("receipt.request") => Err(Error::from(ReceiptError::OtherRequest).into()),
        Some("receipt.response") => Err(Error::from(ReceiptError::OtherResponse).into()),
        Some(_) => Err(Error::from(ReceiptError::OtherEpoch).into()),
    }
}

/// Whether the statement is that of the session.
fn session(path: Option<&Path>, statement: &EpochStatement) -> anyhow::Result<Factor> {
    let (name, got) = ("receipt.session", Digest::of(&statement.encode()).to_string());
    let Some(path) = path else {
        return Ok(Factor::unchecked(name, got, "say --session FILE: anybody can make a statement"));
    };
    let response = AttestResponse::decode(&read(path)?).with_context(|| path.display().to_string())?;
    let want = Digest::of(&response.statement).to_string();
    let help = "the receipt is of another epoch, or of another enclave";
    Ok(Factor::of(name, got == want, got, want, help))
}

/// Whether a file is the body that the receipt names.
fn body(name: &'static str, path: Option<&Path>, signed: Digest) -> anyhow::Result<Factor> {
    let Some(path) = path else {
        return Ok(Factor::unchecked(name, signed.to_string(), "no file was given"));
    };
    let found = Digest::of(&read(path)?);
    let help = "the file is not the body that the enclave signed for";
    Ok(Factor::of(name, found == signed, found.to_string(), signed.to_string(), help))
}

fn fields(receipt: &Receipt) -> Value {
    json!({
        "statement": receipt.statement, "request": receipt.request, "response": receipt.response,
        "model": receipt.model, "prompt_tokens": receipt.prompt_tokens,
        "completion_tokens": receipt.completion_tokens, "sequence": receipt.sequence,
        "finish_reason": receipt.finish_reason,
    })
}

/// The fields of a receipt that was verified when it came, and as `id` the SHA-256 of what the enclave signed.
pub(super) fn of(bundle: &ReceiptBundle) -> anyhow::Result<Value> {
    let receipt = Receipt::decode(&bundle.signed.receipt).context("the receipt")?;
    let mut fields = fields(&receipt);
    fields["id"] = Digest::of(&bundle.signed.receipt).to_string().into();
    Ok(fields)
}

fn show(receipt: &Receipt, factors: &[Factor], json: bool) -> anyhow::Result<()> {
    if json {
        let accepted = factors.iter().all(|factor| factor.status != Status::Fail);
        let result = json!({ "accepted": accepted, "factors": factors, "receipt": fields(receipt) });
        return output::json(&result);
    }
    for factor in factors {
        let status = match factor.status {
            Status::Pass => "pass",
            Status::Fail => "FAIL",
            Status::Unchecked => "unchecked",
        };
        output::finding(&format!("{status:<9} {:<18} {}", factor.name, factor.got.as_deref().unwrap_or("-")));
    }
    output::line(&format!("model     {}", receipt.model));
    output::line(&format!(
        "tokens    {} of the prompt, {} of the answer ({})",
        receipt.prompt_tokens,
        receipt.completion_tokens,
        output::harmless(&receipt.finish_reason),
    ));
    output::line(&format!("number    {}", receipt.sequence));
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let cannot = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(cannot)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).with_context(cannot)?;
    anyhow::ensure!(bytes.len() as u64 <= MAX_FILE, "{} has more than {MAX_FILE} bytes", path.display());
    Ok(bytes)
}
