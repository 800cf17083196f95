"""Turn detection: is the user done?"""
