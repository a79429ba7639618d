"""The callback of config.yaml: ELLE Router decides which deployment of the model group `auto` answers."""

import os

from router.gateways.litellm_plugin import elle_plugin

elle = elle_plugin(os.environ.get("ELLE_ROUTER", "localhost:50051"), groups=("auto",))
