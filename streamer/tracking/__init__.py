"""The parts of the tracker: config, intake (cleaning), rows (the arrays), motion, association, identity.

``vedette.streamer.tracking.tracker`` puts them together and is what the rest of the runtime imports.
"""
