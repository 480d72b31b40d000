# SPDX-License-Identifier: Apache-2.0
"""`python -m trustformer`."""

import sys

from trustformer.cli import main

sys.exit(main())
