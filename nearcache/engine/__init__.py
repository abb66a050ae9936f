"""The flows: written once, async-shaped, over the ports; threads run them to completion, asyncio awaits them."""
