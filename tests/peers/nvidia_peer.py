"""NVIDIA's own local verifier (PyPI: nv-local-gpu-verifier), its steps one by one: with the clock at a given time, and without OCSP, which it
asks over the network.
"""

import datetime
import logging

import signxml.util
from OpenSSL import crypto
from verifier.attestation import AttestationReport
from verifier.cc_admin_utils import CcAdminUtils
from verifier.config import BlackwellSettings, HopperSettings
from verifier.rim import RIM
from verifier.verifier import Verifier

logging.disable(logging.CRITICAL)
ADD_TO_STORE = signxml.util._add_cert_to_store


def at(when):
    """Lets OpenSSL verify certificates as of this time (RFC 3339, UTC), wherever the peer makes a store."""
    when = datetime.datetime.strptime(when, "%Y-%m-%dT%H:%M:%SZ")

    class Store(crypto.X509Store):
        def __init__(self):
            super().__init__()
            self.set_time(when)

    def add(store, certificate):
        store.set_time(when)
        return ADD_TO_STORE(store, certificate)

    crypto.X509Store = Store
    signxml.util._add_cert_to_store = add


def attempt(check):
    """The peer says no by False, a tuple that begins with it, or an exception."""
    try:
        result = check()
    except Exception:  # whatever it raises is a refusal
        return False
    return bool(result[0] if isinstance(result, tuple) else result)


def verdicts(report, chain, rims):
    """By name of our factor. `report`, `chain`: bytes; `rims`: paths by kind, "driver" and "vbios"."""
    chain = [crypto.load_certificate(crypto.FILETYPE_PEM, b"-----BEGIN" + part) for part in chain.split(b"-----BEGIN")[1:]]
    settings = BlackwellSettings() if chain[0].get_subject().CN.startswith("GB") else HopperSettings()
    try:
        report = AttestationReport(report, settings)
    except Exception:
        return {"nvidia.signature": False}
    fwid = report.get_response_message().get_opaque_data().get_data("OPAQUE_FIELD_ID_FWID")
    fwid = fwid.hex() if isinstance(fwid, bytes) else fwid or ""
    mode = settings.Certificate_Chain_Verification_Mode.GPU_ATTESTATION
    leaf = chain[0].to_cryptography()
    out = {
        "nvidia.chain": attempt(lambda: CcAdminUtils.verify_certificate_chain(chain, settings, mode)),
        "nvidia.fwid": fwid == "" or attempt(lambda: CcAdminUtils.extract_fwid(chain[0], settings) == fwid),
        "nvidia.signature": attempt(lambda: report.verify_signature(leaf, settings.signature_length, settings.HashFunction)),
    }
    rims = {kind: RIM(rim_name=kind, settings=settings, rim_path=str(path)) for kind, path in rims.items()}
    if rims:
        signed = [attempt(lambda rim=rim: rim.validate_schema() and rim.verify_signature(settings)) for rim in rims.values()]
        out["nvidia.rim"] = all(signed)
    if len(rims) == 2:
        compare = lambda: Verifier(report, rims["driver"], rims["vbios"], settings).verify(settings)
        out["nvidia.measurements"] = attempt(compare)
    return out
