//! NVIDIA GPUs in confidential-computing mode: SPDM measurement reports and what NVIDIA endorses about them.
