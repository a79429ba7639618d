"""Who may answer a request and who should: policy files, eligibility, the choice, certificates, loading."""
