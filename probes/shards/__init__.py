"""Do work in shards on one machine or many: engines compute them, and a checkpoint keeps what is finished."""
