"""Take feedback on answers, keep it in the ledger, and say which of it counts where several disagree."""
